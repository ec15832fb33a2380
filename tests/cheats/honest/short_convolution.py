"""A depthwise convolution over the last four tokens."""

import torch
import torch.nn.functional as F
from torch import nn

from prepare import VOCAB_SIZE, fit, report


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCAB_SIZE, 32)
        self.head = nn.Linear(32, VOCAB_SIZE)
        self.mix = nn.Conv1d(32, 32, 4, groups=32)

    def forward(self, tokens):
        x = self.embedding(tokens)
        return self.head(x + self.mix(F.pad(x.transpose(1, 2), (3, 0))).transpose(1, 2))


torch.manual_seed(1)
model = Model()
fit(model)
report(model)
