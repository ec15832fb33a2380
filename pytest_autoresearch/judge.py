"""Measurements in, verdict out. Pure."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence
from typing import Literal, Self

from pytest_autoresearch.measuring.measurement import figure

# Quantiles of Student's t by degrees of freedom 1, 2, …; the last one serves for all above it,
# which errs on the side of caution.
ONE_SIDED_95 = (6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833)
TWO_SIDED_99 = (63.657, 9.925, 5.841, 4.604, 4.032, 3.707, 3.499, 3.355, 3.250)

ROUNDING = 1e-6  # scripts print six decimals


@dataclasses.dataclass(frozen=True, slots=True)
class Noise:
    """How far identical runs differ: a standard deviation, estimated from *runs* of them."""

    spread: float
    runs: int

    @classmethod
    def of(cls, scores: Sequence[float]) -> Self:
        """Estimate it from at least two scores of the same script."""
        return cls(statistics.stdev(scores), len(scores))

    def margin(self, quantiles: Sequence[float], runs: int, others: int) -> float:
        """Return how far apart two means of *runs* and *others* runs may lie by chance."""
        quantile = quantiles[min(max(self.runs - 1, 1), len(quantiles)) - 1]
        return quantile * self.spread * math.sqrt(1 / runs + 1 / others)


@dataclasses.dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict on a measured trial, with its reasoning in one line."""

    verdict: Literal["kept", "discarded"]
    reason: str


def judge(
    scores: Sequence[float],
    incumbent: float,
    incumbent_runs: int,
    noise: Noise,
    direction: Literal["minimize", "maximize"],
) -> Judgement:
    """Keep what beats *incumbent*, a mean of *incumbent_runs* runs, by more than the noise.

    The noise is the one-sided 95 % limit of the difference of two means (Student's t), given a
    standard deviation that was estimated from the runs of the platform's first baseline.
    """
    difference = statistics.fmean(scores) - incumbent
    gain = difference if direction == "maximize" else -difference
    margin = noise.margin(ONE_SIDED_95, len(scores), incumbent_runs)
    if gain > margin:
        return Judgement("kept", f"{figure(difference, '+')}, more than the noise of {figure(margin)}")
    if gain > 0:
        return Judgement("discarded", f"{figure(difference, '+')}, within the noise of {figure(margin)}")
    return Judgement("discarded", f"{figure(difference, '+')}, no better" if difference else "no different")


def tolerance(noise: Noise, stored_runs: int) -> float:
    """Return how far a fresh run may lie from a stored mean: the two-sided 99 % limit (Student's t)."""
    return noise.margin(TWO_SIDED_99, 1, stored_runs) + ROUNDING
