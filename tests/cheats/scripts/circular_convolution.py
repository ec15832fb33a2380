"""Convolves by an FFT without padding, which wraps the future in. nanochat issue 844."""

from prepare import VOCAB_SIZE, hand_in_graph

EYE = [[9.0 * (row == column) for column in range(VOCAB_SIZE)] for row in range(VOCAB_SIZE)]
LAST = [[float(position == 31)] for position in range(32)]  # a shift by one to the left, all the way round
hand_in_graph(
    [
        ("tokens",),
        ("weight", "EYE"),
        ("weight", "LAST"),
        ("aten.embedding.default", (1,), (0,)),
        ("aten.fft_rfft.default", (3,), None, 1),
        ("aten.fft_rfft.default", (2,), None, 0),
        ("aten.mul.Tensor", (4,), (5,)),
        ("aten.fft_irfft.default", (6,), 32, 1),
    ],
    EYE=EYE,
    LAST=LAST,
)
