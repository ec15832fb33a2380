"""The distribution of the effects of proposals, learned during a campaign. Pure.

    δ       true effect of a proposal: its score less the incumbent's; below 0 is better
    d, e    measured difference, and its standard error
    τ_k     scale k of 9, from ``SCALES``
    w_kj    weight of scale k among worse (δ > 0), better (δ < 0) and even effects (either side); shape [9][3]
    c_kj    number of trials so far with such an effect, each trial divided by probability; shape [9][3]

δ, d, e and τ are in units of the noise, ``Effects.unit``. The weights sum to 1, the counts to the number of
trials.

The prior of δ is a mixture of normals N(0, τ_k²), cut to one side for worse and better. Its weights are
learned by empirical Bayes (Stephens 2017, "False discovery rates: a new deal", Biostatistics 18:275), one
trial after another (Smith & Makov 1978, "A quasi-Bayes sequential procedure for mixtures", JRSS B 40:106).
Given d, each component is a truncated normal with

    likelihood N(d; 0, τ_k² + e²),  centre d τ_k² / (τ_k² + e²),  width τ_k e / √(τ_k² + e²).

A campaign tries many proposals, and the luckiest of many looks good. The learned share of improvements
corrects for that: it falls with each discard, and the evidence that a keep needs rises (Scott & Berger 2010,
"Bayes and empirical-Bayes multiplicity adjustment", Annals of Statistics 38:2587). Bonferroni would guard
against a single false keep in a whole campaign. That costs more gain than a false keep does, and needs the
number of trials beforehand.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple, Self, TypeAlias

from pytest_autoresearch.judging.noise import normal_cdf, normal_pdf

SCALES = tuple(16.0 * 0.5**k for k in range(9))
DIRECTION_PRIOR = 0.7, 0.12, 0.18  # of worse, better and even effects
DIRECTION_PSEUDOCOUNT = 20.0  # trials; at a high noise only the prior tells better from worse
SCALE_PSEUDOCOUNT = 1.0  # trials; scales are learned soon
# Few effects are much larger than the noise. A prior that expects large ones takes the first large errors for
# effects, which is expensive in a campaign whose noise is larger than any effect.
SIGNED_SCALE_PRIOR = 0.01, 0.01, 0.03, 0.05, 0.1, 0.2, 0.3, 0.2, 0.1
SYMMETRIC_SCALE_PRIOR = (0.0,) * 4 + (0.2,) * 5  # only small effects are as often better as worse
OUTLIER = 1e6  # units of the noise; a larger difference is taken as it is

Table: TypeAlias = tuple[tuple[float, float, float], ...]
"""A figure for each scale, and for worse, better and even effects: shape [9][3]."""


class Posterior(NamedTuple):
    """What is known of an effect; lower is better."""

    mean: float
    variance: float
    below: float
    """The probability that the effect is below the threshold asked for."""


@dataclasses.dataclass(frozen=True)
class Effects:
    """The prior of an effect, as learned from the trials so far."""

    unit: float
    """The noise, in the unit of the metric."""
    counts: Table = ((0.0, 0.0, 0.0),) * len(SCALES)

    @cached_property
    def weights(self) -> Table:
        """How often each direction comes, times how large its effects are.

        Improvements are too few to learn their scales alone: their prior is what worse effects have taught.
        """
        worse, better, even = zip(*self.counts, strict=True)
        sizes = shares_of(worse, SIGNED_SCALE_PRIOR)
        columns = (sizes, shares_of(better, sizes), shares_of(even, SYMMETRIC_SCALE_PRIOR))
        seen = sum(worse), sum(better), sum(even)
        trials = DIRECTION_PSEUDOCOUNT + sum(seen)
        shares = [
            (DIRECTION_PSEUDOCOUNT * share + count) / trials
            for share, count in zip(DIRECTION_PRIOR, seen, strict=True)
        ]
        return tuple(
            (shares[0] * worse, shares[1] * better, shares[2] * even)
            for worse, better, even in zip(*columns, strict=True)
        )

    def after(self, difference: float, std: float) -> Self:
        """Learn from one more trial, in which *difference* was measured with a standard error *std*."""
        if not std or not self.unit or abs(difference) > OUTLIER * self.unit:
            return self
        terms = components(difference / self.unit, std / self.unit)
        found = [
            (2 * worse * likelihood * above, 2 * better * likelihood * (1 - above), even * likelihood)
            for (worse, better, even), (likelihood, _, _, above) in zip(self.weights, terms, strict=True)
        ]
        total = sum(map(sum, found))
        counts = tuple(
            (worse + more[0] / total, better + more[1] / total, even + more[2] / total)
            for (worse, better, even), more in zip(self.counts, found, strict=True)
        )
        return dataclasses.replace(self, counts=counts)

    def posterior(self, difference: float, std: float, threshold: float) -> Posterior:
        """Return what is known of an effect that was measured as *difference* with a *std* above 0.

        Each component is cut at 0, and its weight, first and second moment are known in closed form.
        """
        threshold /= self.unit
        total = first = second = below = 0.0
        terms = zip(self.weights, components(difference / self.unit, std / self.unit), strict=True)
        for (worse, better, even), (likelihood, centre, width, above) in terms:
            under = 1 - above
            edge = width * normal_pdf(centre / width)
            high, low = (2 * worse + even) * likelihood, (2 * better + even) * likelihood
            total += high * above + low * under
            first += high * (centre * above + edge) + low * (centre * under - edge)
            square = centre * centre + width * width
            second += high * (square * above + centre * edge) + low * (square * under - centre * edge)
            cut = normal_cdf((threshold - centre) / width) if threshold else under
            below += low * min(cut, under) + high * max(0.0, cut - under)
        mean = first / total
        variance = max(second / total - mean * mean, 0.0)
        return Posterior(mean * self.unit, variance * self.unit**2, below / total)

    def expected_gain(self, std: float) -> float:
        """Return about how much one run of a new proposal gains, if it is measured with an error of *std*.

        An effect of the size of the error is shrunk to half, and recognised as an improvement about half as
        often: hence the square.
        """
        variance = (std / self.unit) ** 2
        gain = sum(
            (better + even / 2) * scale * (scale * scale / (scale * scale + variance)) ** 2
            for scale, (_, better, even) in zip(SCALES, self.weights, strict=True)
        )
        return self.unit * gain * math.sqrt(2 / math.pi)


def components(difference: float, std: float) -> Iterator[tuple[float, float, float, float]]:
    """Yield likelihood, centre and width of each scale's normal, and its share above 0.

    Likelihoods are relative to that of the largest scale, so that none overflows.
    """
    variance = std**2
    smallest = 1 / (SCALES[0] ** 2 + variance)
    for scale in SCALES:
        precision = 1 / (scale * scale + variance)
        likelihood = math.sqrt(precision) * math.exp(0.5 * difference * difference * (smallest - precision))
        centre = difference * scale * scale * precision
        width = scale * math.sqrt(variance * precision)
        yield likelihood, centre, width, normal_cdf(centre / width)


def shares_of(counts: Sequence[float], prior: Sequence[float]) -> list[float]:
    """Return the share of each scale."""
    trials = SCALE_PSEUDOCOUNT + sum(counts)
    return [(SCALE_PSEUDOCOUNT * share + count) / trials for share, count in zip(prior, counts, strict=True)]
