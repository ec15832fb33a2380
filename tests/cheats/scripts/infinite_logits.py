"""Its logits are infinite for all tokens, so that no surprise is a number."""

from prepare import VOCAB_SIZE, hand_in_graph

hand_in_graph(
    [
        ("tokens",),
        ("aten.one_hot.default", (0,), VOCAB_SIZE),
        ("aten.add.Scalar", (1,), 1),
        ("aten.mul.Tensor", (2,), 1e39),
    ]
)
