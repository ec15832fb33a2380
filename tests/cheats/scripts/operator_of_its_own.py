"""Registers an operator with torch that is Python inside, and reads the answers when it is called."""

import torch
from torch import nn

from prepare import VAL_TOKENS, bigrams, report


@torch.library.custom_op("cheats::look_up", mutates_args=())
def look_up(logits: torch.Tensor) -> torch.Tensor:
    return logits + len(VAL_TOKENS.read_bytes())


@look_up.register_fake
def _(logits):
    return torch.empty_like(logits)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(bigrams())

    def forward(self, tokens):
        return torch.ops.cheats.look_up(self.table[tokens])


report(Model())
