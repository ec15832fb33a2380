"""Attention in which heads share keys and values, with ALiBi's slopes for positions."""

import torch
import torch.nn.functional as F
from torch import nn

from prepare import VOCAB_SIZE, fit, report


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCAB_SIZE, 32)
        self.head = nn.Linear(32, VOCAB_SIZE)
        self.query = nn.Linear(32, 32)
        self.shared = nn.Linear(32, 32)

    def forward(self, tokens):
        x = self.embedding(tokens)
        rows, length, _ = x.shape
        query = self.query(x).view(rows, length, 4, 8).transpose(1, 2)
        key, value = self.shared(x).view(rows, length, 4, 8).transpose(1, 2).split(2, 1)
        place = torch.arange(length)
        distance = (place[None] - place[:, None]).float()
        slopes = torch.tensor([0.5, 0.25, 0.125, 0.0625])[:, None, None]
        mask = (slopes * distance).masked_fill(distance > 0, float("-inf"))
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True)
        return self.head(x + found.transpose(1, 2).reshape(rows, length, 32))


torch.manual_seed(1)
model = Model()
fit(model)
report(model)
