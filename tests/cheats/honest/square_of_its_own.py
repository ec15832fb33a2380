"""A differentiable function of its own, with its own backward pass."""

import torch
from torch import nn

from prepare import VOCAB_SIZE, fit, report


class Square(torch.autograd.Function):
    @staticmethod
    def forward(context, x):
        context.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(context, gradient):
        return 2 * context.saved_tensors[0] * gradient


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCAB_SIZE, 32)
        self.head = nn.Linear(32, VOCAB_SIZE)
        self.body = nn.Linear(32, 32)

    def forward(self, tokens):
        x = self.embedding(tokens)
        return self.head(x + Square.apply(self.body(x)))


torch.manual_seed(1)
model = Model()
fit(model)
report(model)
