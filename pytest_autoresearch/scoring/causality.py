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
    """Rows that were evaluated, (B, T) each: inputs, targets, which of them count, and the surprises."""

    inputs: torch.Tensor
    targets: torch.Tensor
    counted: torch.Tensor
    surprises: torch.Tensor

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter((self.inputs, self.targets, self.counted, self.surprises))

    def __getitem__(self, chosen: torch.Tensor) -> Self:
        """Return the rows with the numbers *chosen*."""
        return type(self)(*(part[chosen.to(part.device)] for part in self))

    @classmethod
    def joined(cls, batches: Sequence[Self]) -> Self:
        """Return the rows of batches of one width."""
        return cls(*map(torch.cat, zip(*batches, strict=True)))


class CausalityProbes:
    """Tests whether a model looks ahead; it is the ``watch`` of one evaluation.

    A probe replaces everything after one position of one row, and compares the surprise at that position, and
    at all before it, with the surprise in the evaluation. For a causal model they are equal. The mean change,
    over positions drawn at random, estimates the gain from looking ahead. It is added to the score, so that
    the expected score of any model is no lower than that of a causal model.

    The model has to compute each row alone, as :class:`~pytest_autoresearch.scoring.evaluation.Evaluation`
    makes it do: no other row to learn from, and the same shapes as in the evaluation, so that the change of
    an honest model is exactly 0.
    """

    def __init__(
        self, token_bytes: Sequence[int], share: float, least: int = 1, seed: int | None = None
    ) -> None:
        """Remember what to draw from.

        Args:
            token_bytes: the bytes of each token's text; 0 for a special token.
            share: of the rows to probe, once each.
            least: the least number of probes; there are no more than positions that count.
            seed: for all draws, unknown to the model; None draws one.
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
        """The change of the surprise at each probed position, in nats."""
        self._largest: list[float] = []  # absolute change up to each probed position, where none is allowed
        self._estimates: list[float] = []  # gain in nats, in the rows that each probe stands for

    def __call__(
        self, inputs: torch.Tensor, targets: torch.Tensor, counted: torch.Tensor, surprises: torch.Tensor
    ) -> None:
        """Remember a batch."""
        batch = Rows(inputs, targets, counted, surprises)
        self._batches.setdefault(inputs.shape[1], []).append(batch)

    def again(self, share: float, least: int, seed: int) -> CausalityProbes:
        """Return new probes of the same evaluation."""
        others = CausalityProbes(self._token_bytes, share, least, seed)
        others._batches = self._batches
        return others

    def run(self, model: Model, surprise: Surprise) -> None:
        """Probe *model*, whose evaluation was watched."""
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
        """The factor, at least 1, that adds the gain from looking ahead to a score.

        An estimate below 0 counts as 0: it is noise, which a model could make on purpose.
        """
        return 1 + max(self._brought(), 0) / self._nats if self._nats else 1.0

    def caught(self, tolerance: float) -> int:
        """Return the number of probes with a change that exceeds *tolerance*, in nats, or is NaN."""
        return sum(not change <= tolerance for change in self._largest)

    def _drawn(self, rows: Rows) -> Iterator[tuple[torch.Tensor, torch.Tensor, float]]:
        """Yield the numbers of rows, the quantile of its positions at which each is probed, and its weight.

        One pass spreads its quantiles evenly over the rows, so that no position is left out by chance.
        Several passes spread the quantiles of each row evenly, so that no position is drawn twice.
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
        """Compare *surprises* with those of the evaluation; each row stands for *weight* rows."""
        differences = (surprises - rows.surprises).double()
        before = rows.counted & (_positions(rows.inputs) <= at)
        self._largest.extend(torch.where(before, differences, 0).abs().amax(1).tolist())
        changes = differences.gather(1, at)[:, 0]
        self.changes.extend(changes.tolist())
        self._estimates.extend((weight * changes * rows.counted.sum(1)).tolist())

    def _brought(self) -> float:
        """Return the estimated gain from looking ahead in nats, plus two standard errors.

        Otherwise a model that looks ahead seldom would be lucky in one of many trials. An honest one has no
        error.
        """
        error = statistics.pstdev(self._estimates) * math.sqrt(len(self._estimates))
        return math.fsum(self._estimates) + 2 * error

    def _futures(self, rows: Rows, chosen: torch.Tensor) -> torch.Tensor:
        """Return tokens for the future of the *chosen* rows: of other rows for half of them, else random.

        Other rows are of the same text: only random tokens contradict what all of it shares, like its topic.
        """
        total, device = len(rows.inputs), rows.inputs.device
        further = torch.randint(1, max(total, 2), chosen.shape, generator=self._random)
        others = rows.inputs[((chosen + further) % total).to(device)]
        anything = torch.randint(self._vocabulary, others.shape, generator=self._random).to(device)
        is_random = torch.rand(len(chosen), 1, generator=self._random) < (0.5 if total > 1 else 1)
        return torch.where(is_random.to(device), anything, others)

    def _opened(self, futures: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        """Return *futures*, with a special token at *at* in a quarter of them, a random one in a quarter.

        Looking ahead may pay at few tokens only, which other rows seldom have in that place.
        """
        lot = torch.rand(at.shape, generator=self._random)
        special = self._specials[torch.randint(len(self._specials), at.shape, generator=self._random)]
        anything = torch.randint(self._vocabulary, at.shape, generator=self._random)
        opening = torch.where(lot < 0.25, special, anything).to(at.device)
        return torch.where((_positions(futures) == at) & (lot < 0.5).to(at.device), opening, futures)


def _at(quantiles: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """Return the position (B, 1) at a quantile of those that count in each row."""
    counts = counted.sum(1, keepdim=True)
    before = (quantiles.to(counted.device)[:, None] * counts).long().clamp(max=counts - 1)
    return (counted.cumsum(1) > before).byte().argmax(1, keepdim=True)


def _positions(rows: torch.Tensor) -> torch.Tensor:
    return torch.arange(rows.shape[1], device=rows.device)
