"""Evaluates an average of its weights over the steps, with the embedding tied to the head."""

import torch
from torch import nn

from prepare import VOCAB_SIZE, fit, report


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCAB_SIZE, 32)
        self.head = nn.Linear(32, VOCAB_SIZE)
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        x = self.embedding(tokens)
        return self.head(x)


torch.manual_seed(1)
model = Model()
with torch.no_grad():
    model.embedding.weight *= 0.1
average = Model()
average.load_state_dict(model.state_dict())
for _ in range(4):
    fit(model, steps=2, rate=0.05)
    with torch.no_grad():
        for mean, weight in zip(average.parameters(), model.parameters(), strict=True):
            mean.lerp_(weight, 0.5)
report(average)
