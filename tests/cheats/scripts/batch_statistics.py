"""Normalises with the statistics of the batch at hand: other rows, and later positions, show through."""

import torch
import torch.nn.functional as F
from torch import nn

from prepare import VOCAB_SIZE, fit, report


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCAB_SIZE, 32)
        self.head = nn.Linear(32, VOCAB_SIZE)

    def forward(self, tokens):
        x = self.embedding(tokens).transpose(1, 2)
        return self.head(F.batch_norm(x, None, None, training=True).transpose(1, 2))


torch.manual_seed(1)
model = Model()
fit(model)
report(model)
