"""Noise of a score, estimates of true scores, and gains. Pure.

    noise.std       standard deviation of the scores of identical runs, in the unit of the metric
    noise.dof       degrees of freedom that it is estimated from
    estimate.mean,  mean and standard deviation of what is known of a version's true score,
    estimate.std    in the unit of the metric

The noise is an estimate too, so every interval is a quantile of Student's t with as many degrees of freedom.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
from collections.abc import Sequence
from typing import Self

ROUNDING = 1e-6  # scripts print six decimals
ROOT_HALF = math.sqrt(0.5)
PEAK = 1 / math.sqrt(2 * math.pi)  # of the standard normal's density


@dataclasses.dataclass(frozen=True, slots=True)
class Noise:
    """How far the scores of identical runs differ."""

    std: float
    dof: int

    @classmethod
    def of(cls, *groups: Sequence[float]) -> Self:
        """Pool *groups* of scores of identical runs, each around its own mean.

        Raises:
            ValueError: no group has two runs.
        """
        noise = cls(0.0, 0).pooled(*groups)
        if not noise.dof:
            raise ValueError("the noise is estimated from at least two runs of one version")
        return noise

    def pooled(self, *groups: Sequence[float]) -> Self:
        """Add more groups of identical runs. A group of one run adds nothing."""
        known = [group for group in groups if len(group) > 1]
        if not known:
            return self
        squares = sum(statistics.variance(group) * (len(group) - 1) for group in known)
        dof = self.dof + sum(len(group) - 1 for group in known)
        return type(self)(math.sqrt((self.std**2 * self.dof + squares) / dof), dof)


@dataclasses.dataclass(frozen=True, slots=True)
class Estimate:
    """What is known of a version's true score: a normal distribution."""

    mean: float
    std: float

    @classmethod
    def of(cls, scores: Sequence[float], noise: Noise) -> Self:
        """Return the estimate from at least one score and no prior."""
        return cls(statistics.fmean(scores), noise.std / math.sqrt(len(scores)))

    def updated(self, score: float, noise: Noise) -> Self:
        """Take in the score of one more run."""
        variance = self.std**2 + noise.std**2
        if not variance:
            return self
        weight = self.std**2 / variance
        return type(self)(self.mean + weight * (score - self.mean), self.std * math.sqrt(1 - weight))


def gain_and_margin(start: Sequence[float], final: Sequence[float], noise: Noise) -> tuple[float, float]:
    """Return the mean of *final* less that of *start*, and half the width of its 95 % interval."""
    std = noise.std * math.sqrt(1 / len(start) + 1 / len(final))
    return statistics.fmean(final) - statistics.fmean(start), t_quantile(0.95, noise.dof) * std


def tolerance(estimate: Estimate, noise: Noise) -> float:
    """Return how far one fresh run may lie from the estimate's mean: two-sided 99 %."""
    return t_quantile(0.99, noise.dof) * math.hypot(estimate.std, noise.std) + ROUNDING


def normal_cdf(z: float) -> float:
    """Return the standard normal's distribution function; NormalDist.cdf gives 0 below -9."""
    return 0.5 * math.erfc(-z * ROOT_HALF)


def normal_pdf(z: float) -> float:
    """Return the standard normal's density. NormalDist.pdf takes three times as long."""
    return math.exp(-0.5 * z * z) * PEAK


@functools.lru_cache(maxsize=1024)
def t_quantile(level: float, dof: int) -> float:
    """Return half the width of the interval around 0 that holds *level* of Student's t.

    By bisection of the distribution function (Abramowitz & Stegun 26.7.3 and 26.7.4).
    """
    low, high = 0.0, 1e4
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        angle = math.atan(middle / math.sqrt(dof))
        term = math.cos(angle) if dof % 2 else 1.0
        total = 0.0
        for k in range(dof % 2, dof - 1, 2):
            total += term
            term *= math.cos(angle) ** 2 * (k + 1) / (k + 2)
        share = math.sin(angle) * total
        if dof % 2:
            share = (share + angle) * 2 / math.pi
        low, high = (middle, high) if share < level else (low, middle)
    return high
