"""Does its learning while it is scored: step after step, each a node of the graph."""

from prepare import VOCAB_SIZE, hand_in_graph

hand_in_graph(
    [
        ("tokens",),
        ("aten.one_hot.default", (0,), VOCAB_SIZE),
        *(("aten.mul.Tensor", (number,), 1.0) for number in range(1, 3000)),
    ]
)
