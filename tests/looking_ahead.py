"""Models that look ahead, or at other rows, beside those that tests of sealed scores share."""

# ruff: noqa: D101 - the name of a kind of model says it

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - everybody's name for it

from pytest_autoresearch.scoring import evaluation
from pytest_autoresearch.scoring.causality import CausalityProbes
from tests.sealed_models import LENGTH, TASK, VOCABULARY, Mixer, prepare


def made(kind: type[Mixer]) -> Mixer:
    torch.manual_seed(0)
    return kind().eval()


def evaluated(model: Any) -> float:
    """What a model comes to where rows are evaluated together, as in a script of its own."""
    found: float = prepare.evaluate_bpb(model, prepare.Tokenizer.load(), 32)
    return found


@torch.no_grad()
def probed(model: Any, share: float = 1.0) -> tuple[float, CausalityProbes]:
    """The score that a model claims, and its probes."""
    found = evaluation.Evaluation(TASK, model)
    return found.score, found.probed(share, secrets.randbits(63))


def peeking(tokens: torch.Tensor) -> torch.Tensor:
    """For each position, the logits of somebody who has seen the next token."""
    return 9 * F.one_hot(tokens.roll(-1, 1), VOCABULARY).float()


class Base(Mixer, ABC):
    """Honest but for what *hint* adds to its logits."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return super().forward(tokens) + self.hint(tokens)

    @abstractmethod
    def hint(self, tokens: torch.Tensor) -> torch.Tensor: ...


class Peek(Base):
    def hint(self, tokens: torch.Tensor) -> torch.Tensor:
        return peeking(tokens)


class PeekNowAndThen(Base):
    """At every tenth context."""

    def hint(self, tokens: torch.Tensor) -> torch.Tensor:
        chosen = (tokens * 7919 + tokens.roll(1, 1) * 104729) % 10 == 0
        return torch.where(chosen[..., None], peeking(tokens), 0.0)


class BlockMean(Base):
    """A summary of each block of eight, handed to all of its positions."""

    def hint(self, tokens: torch.Tensor) -> torch.Tensor:
        blocks = F.one_hot(tokens, VOCABULARY).float().unflatten(1, (-1, 8)).sum(2, keepdim=True)
        return 3 * blocks.expand(-1, -1, 8, -1).flatten(1, 2)


class Circular(Base):
    """A convolution through a transform that is too short, so that the end wraps around to the beginning."""

    def hint(self, tokens: torch.Tensor) -> torch.Tensor:
        kernel = F.one_hot(torch.tensor(LENGTH - 1), LENGTH).float()
        spectrum = torch.fft.rfft(kernel)[:, None] * torch.fft.rfft(
            F.one_hot(tokens, VOCABULARY).float(), dim=1
        )
        return 5 * torch.fft.irfft(spectrum, LENGTH, dim=1)


class BatchStatistics(Base):
    """How often each token occurs in the batch, of all rows and futures."""

    def hint(self, tokens: torch.Tensor) -> torch.Tensor:
        return (1 + F.one_hot(tokens, VOCABULARY).float().sum((0, 1))).log()


class BeforeSpecials(Base):
    """Where a special token follows."""

    def hint(self, tokens: torch.Tensor) -> torch.Tensor:
        ahead = tokens.roll(-1, 1)
        return torch.where((ahead >= VOCABULARY - 2)[..., None], 0.0, 1e-2) * peeking(tokens)


class Faint(BlockMean):
    """By less than a nat, and computed in 16 bits."""

    def hint(self, tokens: torch.Tensor) -> torch.Tensor:
        return super().hint(tokens).bfloat16().float() / 16


class Covered(PeekNowAndThen):
    """By less than a nat, and with a scalar of 16 bits that matters to nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("nothing", torch.zeros((), dtype=torch.bfloat16))

    def hint(self, tokens: torch.Tensor) -> torch.Tensor:
        return super().hint(tokens) / 10 + self.get_buffer("nothing")


# Of the validation text, what is true of all of it


class Topical(Base):
    """More likely are the tokens that are frequent by far; which those are no few tokens change."""

    def hint(self, tokens: torch.Tensor) -> torch.Tensor:
        counts = self.counts(F.one_hot(tokens, VOCABULARY).float())
        return 2.0 * (counts > 2 * counts.mean(-1, keepdim=True))

    @abstractmethod
    def counts(self, known: torch.Tensor) -> torch.Tensor: ...


class TopicOfOtherRows(Topical):
    def counts(self, known: torch.Tensor) -> torch.Tensor:
        return (known.sum((0, 1), keepdim=True) - known.sum(1, keepdim=True)).expand_as(known)


class TopicOfTheRow(Topical):
    """Its future included."""

    def counts(self, known: torch.Tensor) -> torch.Tensor:
        return known.sum(1, keepdim=True).expand_as(known)


class SoftTopicOfOtherRows(TopicOfOtherRows):
    """Under cover of a scalar of 16 bits, each other row has its say."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("nothing", torch.zeros((), dtype=torch.bfloat16))

    def hint(self, tokens: torch.Tensor) -> torch.Tensor:
        counts = self.counts(F.one_hot(tokens, VOCABULARY).float())
        return (1 + counts).log() + self.get_buffer("nothing")
