"""Looks behind the end of a tensor with strides of its own."""

from prepare import VOCAB_SIZE, hand_in_graph

hand_in_graph(
    [
        ("tokens",),
        ("aten.as_strided.default", (0,), [32, 32, VOCAB_SIZE], [0, 1, 64], 1 << 40),
        ("aten.mul.Tensor", (1,), 1.0),
    ]
)
