"""Compiled by torch.compile."""

import torch
import torch.nn.functional as F
from torch import nn

from prepare import VOCAB_SIZE, fit, report


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCAB_SIZE, 32)
        self.head = nn.Linear(32, VOCAB_SIZE)
        self.body = nn.Linear(32, 32)

    def forward(self, tokens):
        x = self.embedding(tokens)
        return self.head(x + F.silu(self.body(x)))


torch.manual_seed(1)
model = Model()
torch.compile(model, backend="eager")(torch.zeros(4, 32, dtype=torch.long))  # before the clock
fit(model)
report(torch.compile(model, backend="eager"))
