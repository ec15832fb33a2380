"""Drops out while it is evaluated, so that every evaluation is another draw."""

import torch.nn.functional as F
from torch import nn

from prepare import bigrams, report


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(bigrams())

    def forward(self, tokens):
        return F.dropout(self.table[tokens], 0.1, training=True)


report(Model())
