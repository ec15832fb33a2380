"""Asks for more memory than there is, to bring the scorer down."""

from prepare import VOCAB_SIZE, hand_in_graph

hand_in_graph(
    [
        ("tokens",),
        ("aten.one_hot.default", (0,), VOCAB_SIZE),
        ("aten.repeat.default", (1,), [1 << 12, 1 << 12, 16]),
    ]
)
