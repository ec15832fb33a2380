"""A head of whole numbers in int8, with a scale for each token."""

import torch
from torch import nn

from prepare import bigrams, report


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        table = bigrams()
        scale = table.abs().amax(1, keepdim=True) / 127
        self.register_buffer("scale", scale)
        self.register_buffer("table", (table / scale).round().to(torch.int8))

    def forward(self, tokens):
        return self.table[tokens].float() * self.scale[tokens]


report(Model())
