"""A recurrence: a GRU cell in a loop over the positions."""

import torch
from torch import nn

from prepare import VOCAB_SIZE, fit, report


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCAB_SIZE, 32)
        self.head = nn.Linear(32, VOCAB_SIZE)
        self.cell = nn.GRUCell(32, 32)

    def forward(self, tokens):
        x = self.embedding(tokens)
        state = torch.zeros_like(x[:, 0])
        states = []
        for position in range(x.shape[1]):
            state = self.cell(x[:, position], state)
            states.append(state)
        return self.head(x + torch.stack(states, 1))


torch.manual_seed(1)
model = Model()
fit(model)
report(model)
