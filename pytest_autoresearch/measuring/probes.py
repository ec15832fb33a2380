"""Causality: whether a model's predictions depend on what comes after."""

from __future__ import annotations

import dataclasses
import itertools
import math
import secrets
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Self

import torch

from pytest_autoresearch.measuring.sealing import Model

Surprise = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Nats of each target (B, T) under logits (B, T, vocabulary)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """What evaluate_bpb saw, each (B, T): inputs, targets, which of them count, and the surprise at each."""

    inputs: torch.Tensor
    targets: torch.Tensor
    counted: torch.Tensor
    surprises: torch.Tensor

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter((self.inputs, self.targets, self.counted, self.surprises))

    @classmethod
    def stacked(cls, batches: Sequence[Self]) -> Self:
        """Return batches of one shape as one, (n, B, T)."""
        return cls(*map(torch.stack, zip(*batches, strict=True)))

    def rows(self, chosen: torch.Tensor) -> Self:
        """Return, of a stack, row i of batch chosen[i], for every i of B."""
        places = torch.arange(len(chosen))
        return type(self)(*(part[chosen, places] for part in self))


class Probes:
    """Looks whether a model looks ahead: the ``watch`` of one evaluation.

    A probe replaces all that follows one position of one row, and all the other rows, and compares the
    surprise at that position with what it was. To a causal model both are one. The mean change, over
    positions drawn at random, is what looking ahead brought; it is added to the score, whose expectation
    is then no less than that of a causal model, whatever the model does.

    Probes come in batches of the shape of those before, each row at the same place of its batch, so that
    the same kernels run over the same shapes and an honest change is not rounded, but 0.
    """

    def __init__(self, token_bytes: Sequence[int], share: float) -> None:
        """Remember what to draw from; nobody can know what will be drawn.

        Args:
            token_bytes: of each token of the vocabulary; special ones stand for no bytes.
            share: of the rows to probe, of each shape of batch at least one batch.
        """
        self._share = share
        self._vocabulary = len(token_bytes)
        self._specials = torch.tensor([token for token, size in enumerate(token_bytes) if size == 0] or [0])
        self._random = torch.Generator().manual_seed(secrets.randbits(63))
        self._batches: list[Batch] = []
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
        self._batches.append(Batch(inputs, targets, counted, surprises))

    def run(self, model: Model, surprise: Surprise) -> None:
        """Probe the model that the batches were evaluated with; *surprise* is what was evaluated."""
        shapes: dict[torch.Size, list[Batch]] = {}
        for batch in self._batches:
            shapes.setdefault(batch.inputs.shape, []).append(batch)
        for alike in shapes.values():
            count = max(1, math.ceil(self._share * len(alike)))
            stacked = Batch.stacked(alike)
            # Each row keeps its place: column by column another permutation of the batches.
            order = torch.rand(len(alike), len(stacked.inputs[0]), generator=self._random).argsort(0)
            for chosen, others in itertools.islice(zip(order, order.roll(-1, 0), strict=True), count):
                batch = stacked.rows(chosen)
                # Whose future a row gets is not in the batch itself, or one could look it up in the other.
                future = stacked.rows(others).inputs if len(alike) > 1 else self._drawn_from(batch.inputs)
                self._probe(batch, future, model, surprise, len(alike) / count)

    @property
    def factor(self) -> float:
        """What a score is to be multiplied with, to be without what looking ahead brought: at least 1.

        An estimate below 0 is noise, and a model could make noise on purpose, for the luck of a low draw.
        """
        nats = sum(batch.surprises[batch.counted].sum(dtype=torch.float64).item() for batch in self._batches)
        return 1 + max(self._brought(), 0) / nats if nats else 1.0

    def caught(self, tolerance: float) -> int:
        """Return of how many probes a change exceeds *tolerance*, or is no number."""
        return sum(not change <= tolerance for change in self._largest)

    def rise(self) -> float:
        """Return the mean change, in nats, if it is beyond chance: four standard errors; else 0."""
        mean = statistics.fmean(self.changes)
        error = statistics.pstdev(self.changes, mean) / math.sqrt(len(self.changes))
        return mean if mean > 4 * error else 0.0

    def _probe(
        self, batch: Batch, future: torch.Tensor, model: Model, surprise: Surprise, weight: float
    ) -> None:
        """Probe one position of each row, which stands for *weight* rows."""
        possible = batch.counted.any(1)  # a row of special tokens alone has nothing to probe
        among = (batch.counted | ~possible[:, None]).double().cpu()
        at = torch.multinomial(among, 1, generator=self._random).to(future.device)
        inputs = torch.where(_positions(future) > at, self._opened(future, at + 1), batch.inputs)
        after = surprise(model(inputs), batch.targets)
        differences = (after - batch.surprises).double()
        before = batch.counted & (_positions(future) <= at)
        self._largest.extend(torch.where(before, differences, 0).abs().amax(1)[possible].tolist())
        changes = differences.gather(1, at)[possible, 0]
        self.changes.extend(changes.tolist())
        self._estimates.extend((weight * changes * batch.counted[possible].sum(1)).tolist())

    def _brought(self) -> float:
        """Return how many nats looking ahead brought in all, with two standard errors on top.

        Whoever looks ahead seldom, and tries often, is else lucky some day; the honest have nothing to vary.
        """
        error = statistics.pstdev(self._estimates) * math.sqrt(len(self._estimates))
        return math.fsum(self._estimates) + 2 * error

    def _opened(self, future: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        """Return rows of which a quarter has a special token at *at*, and a quarter a random one.

        For looking ahead may pay at few tokens only, which other rows seldom have in that place.
        """
        lot = torch.rand(at.shape, generator=self._random)
        special = self._specials[torch.randint(len(self._specials), at.shape, generator=self._random)]
        anything = torch.randint(self._vocabulary, at.shape, generator=self._random)
        opening = torch.where(lot < 0.25, special, anything).to(at.device)
        return torch.where((_positions(future) == at) & (lot < 0.5).to(at.device), opening, future)

    def _drawn_from(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return rows of tokens drawn from *inputs*, for want of other rows."""
        return inputs.flatten()[torch.randint(inputs.numel(), inputs.shape, generator=self._random)]


def _positions(rows: torch.Tensor) -> torch.Tensor:
    return torch.arange(rows.shape[1], device=rows.device)
