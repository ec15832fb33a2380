"""A bfloat16 mixture of experts behind an FFT, whose rounding tips the router now and then."""

import torch
from torch import nn
from torch.nn import functional as F

from prepare import MAX_SEQ_LEN, VOCAB_SIZE, fit, report


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCAB_SIZE, 32)
        self.kernel = nn.Parameter(torch.randn(32, MAX_SEQ_LEN) * 0.1)
        self.router = nn.Linear(32, 4, dtype=torch.bfloat16)
        self.experts = nn.Parameter((torch.randn(4, 32, 32) * 0.3).bfloat16())
        self.head = nn.Linear(32, VOCAB_SIZE)

    def forward(self, tokens):
        x = self.embedding(tokens)
        for _ in range(2):
            x = x + self.mixed(F.rms_norm(self.convolved(x), (32,)).bfloat16().flatten(0, 1)).view_as(x)
        return self.head(x)

    def convolved(self, x):
        n = 2 * MAX_SEQ_LEN  # long enough for nothing to wrap around
        y = torch.fft.irfft(torch.fft.rfft(x.mT, n) * torch.fft.rfft(self.kernel, n), n)
        return y[..., :MAX_SEQ_LEN].mT

    def mixed(self, flat):
        chosen = self.router(flat).argmax(-1)
        out = torch.zeros_like(flat)
        for number, expert in enumerate(self.experts):
            at = torch.nonzero(chosen == number).squeeze(-1)
            out = out.index_add(0, at, flat[at] @ expert)
        return out.float()


torch.manual_seed(1)
model = Model()
fit(model)
report(model)
