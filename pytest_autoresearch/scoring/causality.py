"""Causality: whether a model's predictions depend on what comes after."""

from __future__ import annotations

import dataclasses
import math
import secrets
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Self

import torch

from pytest_autoresearch.scoring.export import Model

TOGETHER = 32  # rows that are probed at a time; only memory bounds it

Surprise = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Nats of each target (B, T) under logits (B, T, vocabulary)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Rows:
    """What evaluate_bpb saw, each (B, T): inputs, targets, which of them count, and the surprise at each."""

    inputs: torch.Tensor
    targets: torch.Tensor
    counted: torch.Tensor
    surprises: torch.Tensor

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter((self.inputs, self.targets, self.counted, self.surprises))

    def __getitem__(self, chosen: torch.Tensor) -> Self:
        """Return the rows with these numbers."""
        return type(self)(*(part[chosen.to(part.device)] for part in self))

    @classmethod
    def joined(cls, batches: Sequence[Self]) -> Self:
        """Return the rows of batches of one width."""
        return cls(*map(torch.cat, zip(*batches, strict=True)))


class CausalityProbes:
    """Looks whether a model looks ahead: the ``watch`` of one evaluation.

    A probe replaces all that follows one position of one row, and compares the surprise at that position,
    and at all before, with what it was. To a causal model both are one. The mean change, over positions
    drawn at random, is what looking ahead brought; it is added to the score, whose expectation is then no
    less than that of a causal model, whatever the model does.

    The model has to compute each row alone, as :class:`scoring.Evaluation` has it do. Then there is no other
    row to learn from, and the shapes are those of the evaluation, so that an honest change is not rounded,
    but 0.
    """

    def __init__(
        self, token_bytes: Sequence[int], share: float, least: int = 1, seed: int | None = None
    ) -> None:
        """Remember what to draw from.

        Args:
            token_bytes: of each token of the vocabulary; special ones stand for no bytes.
            share: of the rows to probe, once each.
            least: probes, if that share has fewer rows; there are no more than positions that count.
            seed: of all that is drawn, which no model may know; None is for one of its own.
        """
        self._token_bytes = token_bytes
        self._share = share
        self._least = least
        self._vocabulary = len(token_bytes)
        self._specials = torch.tensor([token for token, size in enumerate(token_bytes) if size == 0] or [0])
        self._random = torch.Generator().manual_seed(secrets.randbits(63) if seed is None else seed)
        self._batches: dict[int, list[Rows]] = {}  # by width
        self._nats = 0.0
        self.changes: list[float] = []
        """Of the surprise at each probed position, in nats."""
        self._largest: list[
            float
        ] = []  # change, either way, up to each probed position: nothing there may see it
        self._estimates: list[
            float
        ] = []  # nats that looking ahead brought, in the rows that each probe stands for

    def __call__(
        self, inputs: torch.Tensor, targets: torch.Tensor, counted: torch.Tensor, surprises: torch.Tensor
    ) -> None:
        """Remember a batch."""
        batch = Rows(inputs, targets, counted, surprises)
        self._batches.setdefault(inputs.shape[1], []).append(batch)

    def again(self, share: float, least: int, seed: int) -> CausalityProbes:
        """Return other probes of the same evaluation; the arguments are as for a new one."""
        others = CausalityProbes(self._token_bytes, share, least, seed)
        others._batches = self._batches
        return others

    def run(self, model: Model, surprise: Surprise) -> None:
        """Probe the model that the batches were evaluated with; *surprise* is what was evaluated."""
        for batches in self._batches.values():
            rows = Rows.joined(batches)
            self._nats += rows.surprises[rows.counted].sum(dtype=torch.float64).item()
            rows = rows[rows.counted.any(1).nonzero()[:, 0]]  # special tokens alone leave nothing to probe
            for chosen, quantiles, weight in self._drawn(rows):
                probed, futures = rows[chosen], self._futures(rows, chosen)
                at = _at(quantiles, probed.counted)
                inputs = torch.where(_positions(futures) > at, self._opened(futures, at + 1), probed.inputs)
                self._compare(probed, at, weight, surprise(model(inputs), probed.targets))

    @property
    def factor(self) -> float:
        """What a score is to be multiplied with, to be without what looking ahead brought: at least 1.

        An estimate below 0 is noise, and a model could make noise on purpose, for the luck of a low draw.
        """
        return 1 + max(self._brought(), 0) / self._nats if self._nats else 1.0

    def caught(self, tolerance: float) -> int:
        """Return of how many probes a change exceeds *tolerance*, or is no number."""
        return sum(not change <= tolerance for change in self._largest)

    def _drawn(self, rows: Rows) -> Iterator[tuple[torch.Tensor, torch.Tensor, float]]:
        """Yield numbers of rows, the quantile of its positions at which each is probed, and its weight.

        One pass over the rows spreads its quantiles evenly, so that no position of all rows is left out by
        chance. Several passes spread those of each row evenly, so that none is drawn twice.
        """
        total = len(rows.inputs)
        count = min(max(self._least, math.ceil(self._share * total)), int(rows.counted.sum()))
        passes, size = math.ceil(count / max(total, 1)), min(count, total)
        order = torch.randperm(total, generator=self._random)[:size]
        first = torch.rand(size, generator=self._random, dtype=torch.float64)
        first = (torch.arange(size) + first) / size
        for number in range(passes):
            quantiles = (first + number / passes) % 1
            for start in range(0, size, TOGETHER):
                some = slice(start, start + TOGETHER)
                yield order[some], quantiles[some], total / (passes * size)

    def _compare(self, rows: Rows, at: torch.Tensor, weight: float, surprises: torch.Tensor) -> None:
        """Compare *surprises* with what they were, in rows that each stand for *weight* of them."""
        differences = (surprises - rows.surprises).double()
        before = rows.counted & (_positions(rows.inputs) <= at)
        self._largest.extend(torch.where(before, differences, 0).abs().amax(1).tolist())
        changes = differences.gather(1, at)[:, 0]
        self.changes.extend(changes.tolist())
        self._estimates.extend((weight * changes * rows.counted.sum(1)).tolist())

    def _brought(self) -> float:
        """Return how many nats looking ahead brought in all, with two standard errors on top.

        Whoever looks ahead seldom, and tries often, is else lucky some day; the honest have nothing to vary.
        """
        error = statistics.pstdev(self._estimates) * math.sqrt(len(self._estimates))
        return math.fsum(self._estimates) + 2 * error

    def _futures(self, rows: Rows, chosen: torch.Tensor) -> torch.Tensor:
        """Return tokens to replace those of the *chosen* rows: half of them another row's, half random ones.

        Other rows are of the same text. What is true of all of it, its topic say, only random tokens deny.
        """
        total, device = len(rows.inputs), rows.inputs.device
        further = torch.randint(1, max(total, 2), chosen.shape, generator=self._random)
        others = rows.inputs[((chosen + further) % total).to(device)]
        anything = torch.randint(self._vocabulary, others.shape, generator=self._random).to(device)
        is_random = torch.rand(len(chosen), 1, generator=self._random) < (0.5 if total > 1 else 1)
        return torch.where(is_random.to(device), anything, others)

    def _opened(self, futures: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        """Return rows of which a quarter has a special token at *at*, and a quarter a random one.

        For looking ahead may pay at few tokens only, which other rows seldom have in that place.
        """
        lot = torch.rand(at.shape, generator=self._random)
        special = self._specials[torch.randint(len(self._specials), at.shape, generator=self._random)]
        anything = torch.randint(self._vocabulary, at.shape, generator=self._random)
        opening = torch.where(lot < 0.25, special, anything).to(at.device)
        return torch.where((_positions(futures) == at) & (lot < 0.5).to(at.device), opening, futures)


def _at(quantiles: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """Return, (B, 1), the position at a quantile of those that count in each row."""
    counts = counted.sum(1, keepdim=True)
    before = (quantiles.to(counted.device)[:, None] * counts).long().clamp(max=counts - 1)
    return (counted.cumsum(1) > before).byte().argmax(1, keepdim=True)


def _positions(rows: torch.Tensor) -> torch.Tensor:
    return torch.arange(rows.shape[1], device=rows.device)
