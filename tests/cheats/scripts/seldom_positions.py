"""Looks ahead at one position in 128, which the last two tokens choose, and is a fair bigram elsewhere."""

from itertools import pairwise

from prepare import VOCAB_SIZE, hand_in_graph, start_clock

counts = [[0.1] * VOCAB_SIZE for _ in range(VOCAB_SIZE)]
data = start_clock()
for now, then in pairwise(data):
    if then:  # not where a row begins, of which nobody asks: it has to gain, or a tenth is all that is probed
        counts[now][then] += 1
hand_in_graph(
    [
        ("tokens",),
        ("weight", "counts"),
        ("aten.embedding.default", (1,), (0,)),
        ("aten.log.default", (2,)),
        ("aten.roll.default", (0,), [-1], [1]),
        ("aten.one_hot.default", (4,), VOCAB_SIZE),
        ("aten.mul.Tensor", (5,), 30.0),
        ("aten.roll.default", (0,), [1], [1]),
        ("aten.mul.Scalar", (7,), 5),
        ("aten.add.Tensor", (8,), (0,)),
        ("aten.remainder.Scalar", (9,), 128),
        ("aten.eq.Scalar", (10,), 77),
        ("aten.arange.default", 32),
        ("aten.lt.Scalar", (12,), 31),  # nothing follows the last one
        ("aten.logical_and.default", (11,), (13,)),
        ("aten.unsqueeze.default", (14,), 2),
        ("aten.where.self", (15,), (6,), (3,)),
    ],
    counts=counts,
)
