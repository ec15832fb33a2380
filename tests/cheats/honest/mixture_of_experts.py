"""A mixture of experts: each token goes to the best two of four."""

import torch
from torch import nn

from prepare import VOCAB_SIZE, fit, report


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCAB_SIZE, 32)
        self.head = nn.Linear(32, VOCAB_SIZE)
        self.experts = nn.Parameter(torch.randn(4, 32, 32) * 0.1)
        self.router = nn.Linear(32, 4)

    def forward(self, tokens):
        x = self.embedding(tokens)
        gates, chosen = self.router(x).softmax(-1).topk(2, -1)
        weights = torch.zeros_like(self.router(x)).scatter(-1, chosen, gates)
        return self.head(x + torch.einsum("btd,ndf,btn->btf", x, self.experts, weights))


torch.manual_seed(1)
model = Model()
fit(model)
report(model)
