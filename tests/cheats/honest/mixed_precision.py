"""Computes in bfloat16 under autocast, with some of its weights in bfloat16."""

import torch
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
        with torch.autocast("cpu", dtype=torch.bfloat16):
            x = self.body(x.relu())
        return self.head(x.bfloat16()).float()


torch.manual_seed(1)
model = Model()
model.head.bfloat16()
fit(model)
report(model)
