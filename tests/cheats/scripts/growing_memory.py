"""Adds up in a buffer what it is asked to predict: training on validation. parameter-golf #402, #1082."""

import torch
from torch import nn

from prepare import VOCAB_SIZE, bigrams, report


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(bigrams())
        self.register_buffer("seen", torch.zeros(VOCAB_SIZE))

    def forward(self, tokens):
        self.seen.add_(torch.bincount(tokens.flatten(), minlength=VOCAB_SIZE))
        return self.table[tokens] + self.seen.log1p()


report(Model())
