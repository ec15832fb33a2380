"""Two tables of n-grams counted in the training data, the longer ones hashed, in an ensemble."""

import torch
import torch.nn.functional as F
from torch import nn

from prepare import MAX_SEQ_LEN, VOCAB_SIZE, Tokenizer, bigrams, make_dataloader, report

BUCKETS = 509


def hashed(tokens):
    before = F.pad(tokens, (1, 0))[:, :-1]
    return torch.bitwise_xor(36313 * tokens, 27191 * before) % BUCKETS


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        inputs, targets, _ = next(make_dataloader(Tokenizer.load(), 512, MAX_SEQ_LEN, "train"))
        pairs = hashed(inputs) * VOCAB_SIZE + targets
        counts = torch.bincount(pairs.flatten(), minlength=BUCKETS * VOCAB_SIZE)
        self.register_buffer("longer", (counts.view(BUCKETS, VOCAB_SIZE) + 1.0).log())
        self.register_buffer("shorter", bigrams())

    def forward(self, tokens):
        longer = self.longer[hashed(tokens)].log_softmax(-1)
        return torch.logaddexp(longer - 2, self.shorter[tokens].log_softmax(-1))


report(Model())
