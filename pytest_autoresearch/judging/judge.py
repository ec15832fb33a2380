"""Noisy runs in, verdict out. Pure.

A proposal is better or worse than the incumbent by an unknown *effect*. What a campaign has seen so far
teaches how large effects are and how seldom they are improvements: a mixture of half-normals, worse,
better and to either side, on a geometric grid of scales, with weights learned by empirical Bayes
(Stephens 2017, "False discovery rates: a new deal", Biostatistics 18:275), one trial after another
(Smith & Makov 1978, "A quasi-Bayes sequential procedure for mixtures", JRSS B 40:106). What a measured
proposal says of its effect is then a mixture of truncated normals.

Many proposals are tried, and the luckiest of many looks good. The correction is the learned share of
improvements: with each discard it falls, and the evidence asked for rises (Scott & Berger 2010, "Bayes
and empirical-Bayes multiplicity adjustment", Annals of Statistics 38:2587). Bonferroni would guard
against a single false keep in a whole campaign, which costs more gain than a false keep does, and would
need to know beforehand how many tries there will be.

A proposal is kept when an improvement is expected and probable enough. It is measured again while some
number of further runs is worth more than the same runs spent on new proposals: the knowledge gradient,
several runs ahead (Frazier & Powell 2010, "Paradoxes in learning and the marginal value of information",
Decision Analysis 7:378), under a normal approximation. Each proposal, kept or not, also says something
of the incumbent it was compared with: one that most proposals seem to beat was measured unluckily.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, Self

from pytest_autoresearch.records.measurement import format_score

Direction = Literal["minimize", "maximize"]

CONFIDENCE = 0.4
"""The probability of an improvement that a keep asks for; benchmarks/judge.py shows what others gain."""
STRICT = 0.95
MIN_EFFECT = 0.0002
"""The share of its score that an improvement has to gain for somebody who asks for certainty."""
MOST_RUNS = 16
"""Of one proposal; measurements of the incumbent do not count."""

SCALES = tuple(16.0 * 0.5**k for k in range(9))  # of effects, in units of the noise, largest first
DIRECTION_PRIOR = 0.7, 0.12, 0.18  # of worse, better and even effects, before any is seen
DIRECTION_PSEUDOCOUNT = 20.0  # trials; at a high noise nothing else tells better from worse
SCALE_PSEUDOCOUNT = 1.0  # trials; sizes are soon learned
# How effects are spread over SCALES at first: few are much larger than the noise. Whoever expects large ones
# takes the first large errors for them, which a campaign whose noise is larger than any effect pays for.
SIGNED_SCALE_PRIOR = 0.01, 0.01, 0.03, 0.05, 0.1, 0.2, 0.3, 0.2, 0.1
SYMMETRIC_SCALE_PRIOR = (0.0,) * 4 + (0.2,) * 5  # even ones: what changes little may fall to either side
RERUN_COST = 0.6  # what a run costs, as a share of the gain that one of a new proposal may bring
FAR = 1e6  # differences in units of the noise beyond which it cannot matter
AHEAD = 1, 2, 4, 8  # how many further runs are weighed
FULL_ALLOWANCE = 20  # tokens
ROOT_HALF = math.sqrt(0.5)
PEAK = 1 / math.sqrt(2 * math.pi)
ROUNDING = 1e-6  # scripts print six decimals


class ObservedEffect(NamedTuple):
    """What a measured trial has shown."""

    difference: float
    """Mean of its runs less the incumbent's mean, in the metric's own sign."""
    error: float
    """The standard error of the difference."""


@dataclasses.dataclass(frozen=True, slots=True)
class Noise:
    """How far identical runs differ: a standard deviation, and the degrees of freedom behind it."""

    spread: float
    freedom: int

    @classmethod
    def of(cls, *groups: Sequence[float]) -> Self:
        """Pool *groups* of identical runs, each around its own mean; one group at least has two runs."""
        freedom = sum(len(group) - 1 for group in groups if group)
        if not freedom:
            raise ValueError("the noise is estimated from two runs of one version at least")
        squares = sum(statistics.variance(group) * (len(group) - 1) for group in groups if len(group) > 1)
        return cls(math.sqrt(squares / freedom), freedom)

    def pooled(self, *groups: Sequence[float]) -> Self:
        """Add more groups of identical runs; groups of one say nothing."""
        if all(len(group) < 2 for group in groups):
            return self
        more = type(self).of(*groups)
        freedom = self.freedom + more.freedom
        squares = self.spread**2 * self.freedom + more.spread**2 * more.freedom
        return type(self)(math.sqrt(squares / freedom), freedom)


@dataclasses.dataclass(frozen=True, slots=True)
class Estimate:
    """Of a version's true score: a normal distribution."""

    mean: float
    error: float
    """Its standard deviation."""

    @classmethod
    def of(cls, scores: Sequence[float], noise: Noise) -> Self:
        """Believe in the mean of *scores*, at least one of them."""
        return cls(statistics.fmean(scores), noise.spread / math.sqrt(len(scores)))

    def updated(self, score: float, noise: Noise) -> Self:
        """Take in one more fresh run."""
        spread = self.error**2 + noise.spread**2
        if not spread:
            return self
        gain = self.error**2 / spread
        return type(self)(self.mean + gain * (score - self.mean), self.error * math.sqrt(1 - gain))


class Posterior(NamedTuple):
    """What is known of an effect; lower is better."""

    mean: float
    variance: float
    below: float
    """The probability that the effect lies below the threshold asked for."""


def normal_cdf(z: float) -> float:
    """Return the standard normal's distribution function."""
    return 0.5 * math.erfc(-z * ROOT_HALF)


def normal_pdf(z: float) -> float:
    """Return the standard normal's density."""
    return math.exp(-0.5 * z * z) * PEAK


Counts = tuple[tuple[float, float, float], ...]  # worse, better, even; one triple a scale
NOTHING: Counts = ((0.0, 0.0, 0.0),) * len(SCALES)


@dataclasses.dataclass(frozen=True, slots=True)
class Effects:
    """How large the effects of proposals are, as far as a campaign has taught."""

    unit: float
    """The noise that the scales are multiples of."""
    sign: Literal[1, -1]
    """-1 if higher is better."""
    counts: Counts
    """How many trials had an effect of each kind, each trial shared out by probability."""
    weights: Counts
    """The mixture: prior and counts, summing to 1."""

    @classmethod
    def learned(cls, seen: Iterable[ObservedEffect], noise: Noise, direction: Direction = "minimize") -> Self:
        """Learn from every measured trial of a campaign, oldest first."""
        effects = cls(noise.spread, 1 if direction == "minimize" else -1, NOTHING, first_weights())
        for trial in seen:
            effects = effects.after(trial)
        return effects

    def after(self, trial: ObservedEffect) -> Self:
        """Learn from one trial more."""
        if not trial.error or not self.unit or abs(trial.difference) > FAR * self.unit:
            return self
        difference, error2 = self.sign * trial.difference / self.unit, (trial.error / self.unit) ** 2
        top = 1 / (SCALES[0] ** 2 + error2)
        found = []
        for scale, (worse, better, even) in zip(SCALES, self.weights, strict=True):
            total = 1 / (scale * scale + error2)
            likely = math.sqrt(total) * math.exp(0.5 * difference * difference * (top - total))
            above = normal_cdf(difference * scale * math.sqrt(total / error2))
            found.append((2 * worse * likely * above, 2 * better * likely * (1 - above), even * likely))
        whole = sum(map(sum, found))
        counts = tuple(
            (worse + more[0] / whole, better + more[1] / whole, even + more[2] / whole)
            for (worse, better, even), more in zip(self.counts, found, strict=True)
        )
        return dataclasses.replace(self, counts=counts, weights=weighted(counts))

    def posterior(self, difference: float, error: float, threshold: float) -> Posterior:
        """Return what *difference*, measured with a standard *error* above 0, says of the effect.

        Every term is a normal times half a normal, cut at zero: its weight, its first and its second
        moment are known in closed form. Factors are relative to the widest scale's, so none overflows.
        """
        difference, threshold, error2 = (
            difference / self.unit,
            threshold / self.unit,
            (error / self.unit) ** 2,
        )
        top = 1 / (SCALES[0] ** 2 + error2)
        whole = first = second = below = 0.0
        for scale, (worse, better, even) in zip(SCALES, self.weights, strict=True):
            total = 1 / (scale * scale + error2)
            likely = math.sqrt(total) * math.exp(0.5 * difference * difference * (top - total))
            middle = difference * scale * scale * total
            width = scale * math.sqrt(error2 * total)
            above = normal_cdf(middle / width)
            under = 1 - above
            edge = width * normal_pdf(middle / width)
            high, low = (2 * worse + even) * likely, (2 * better + even) * likely
            whole += high * above + low * under
            first += high * (middle * above + edge) + low * (middle * under - edge)
            square = middle * middle + width * width
            second += high * (square * above + middle * edge) + low * (square * under - middle * edge)
            if threshold:
                cut = normal_cdf((threshold - middle) / width)
                below += low * min(cut, under) + high * max(0.0, cut - under)
            else:
                below += low * under
        mean = first / whole
        variance = max(second / whole - mean * mean, 0.0)
        return Posterior(mean * self.unit, variance * self.unit**2, below / whole)

    def worth(self, error: float) -> float:
        """Return about how much gain a run of a new proposal brings, if it is measured with *error*.

        An effect of the size of the error is shrunk to half, and taken for an improvement about half as
        often as it is one: hence the square.
        """
        error2 = (error / self.unit) ** 2
        gain = sum(
            (better + even / 2) * scale * (scale * scale / (scale * scale + error2)) ** 2
            for scale, (_, better, even) in zip(SCALES, self.weights, strict=True)
        )
        return self.unit * gain * math.sqrt(2 / math.pi)


def weighted(counts: Counts) -> Counts:
    """Return the weights of the mixture: how often each kind of effect comes, times how large it is.

    Improvements are too few to learn their sizes from alone: at first they are as large as what is worse.
    """
    worse, better, even = zip(*counts, strict=True)
    sizes = spread_over(worse, SIGNED_SCALE_PRIOR)
    columns = (sizes, spread_over(better, sizes), spread_over(even, SYMMETRIC_SCALE_PRIOR))
    seen = sum(worse), sum(better), sum(even)
    trials = DIRECTION_PSEUDOCOUNT + sum(seen)
    shares = [
        (DIRECTION_PSEUDOCOUNT * share + count) / trials
        for share, count in zip(DIRECTION_PRIOR, seen, strict=True)
    ]
    return tuple(
        (shares[0] * large, shares[1] * better, shares[2] * even)
        for large, better, even in zip(*columns, strict=True)
    )


@functools.cache
def first_weights() -> Counts:
    """Return the weights before anything was counted."""
    return weighted(NOTHING)


def spread_over(counts: Sequence[float], first: Sequence[float]) -> list[float]:
    """Return the shares of the scales, which were *first* before anything was counted."""
    trials = SCALE_PSEUDOCOUNT + sum(counts)
    return [(SCALE_PSEUDOCOUNT * share + count) / trials for share, count in zip(first, counts, strict=True)]


@dataclasses.dataclass(frozen=True, slots=True)
class Judgement:
    """What to do with a proposal, with the reasoning in one line."""

    action: Literal["keep", "discard", "measure candidate", "measure incumbent"]
    difference: float
    """The expected difference of candidate and incumbent, in the metric's own sign."""
    error: float
    """Its standard deviation."""
    belief: Estimate
    """Of the candidate, and of the incumbent once the candidate is kept."""
    incumbent: Estimate
    """Of the incumbent once the candidate is discarded: what the comparison says of it is taken in."""
    reason: str


def judge(
    scores: Sequence[float],
    incumbent: Estimate,
    noise: Noise,
    effects: Effects,
    *,
    code_size_change: int = 0,
    price: float = 0.0,
    spent: float = 0.0,
    least: float = 0.0,
    confidence: float = CONFIDENCE,
    direction: Direction = "minimize",
) -> Judgement:
    """Decide on a candidate from the *scores* of its runs so far, none or more.

    *code_size_change* is how much longer its code is than the incumbent's, in tokens of Python, *price* what
    a token has to gain in units of the metric: growth is added to the difference. A shorter one is kept even
    if it is worse by less than its ``allowance``, of which earlier ones have *spent* some. With a price of 0
    the length does not count.

    Keep if the expected difference is a gain, one of *least* at least unless the candidate is shorter, and
    is so with a probability of *confidence*, above 0 and below 1. The scale of the noise being an estimate,
    that is a quantile of Student's t.
    """
    if not scores:
        unknown = Estimate(incumbent.mean, math.inf)
        return Judgement("measure candidate", 0.0, math.inf, unknown, incumbent, "not measured yet")
    sign = 1 if direction == "minimize" else -1
    difference = sign * (statistics.fmean(scores) - incumbent.mean)
    own, other = noise.spread / math.sqrt(len(scores)), incumbent.error
    error = math.hypot(own, other)
    threshold = acceptance_threshold(code_size_change, price, noise, spent, least)
    if not effects.unit or error < effects.unit / FAR or abs(difference) > FAR * effects.unit:
        action: Literal["keep", "discard"] = "keep" if difference < threshold else "discard"
        reason = explained(sign * difference, error, len(scores), code_size_change)
        return Judgement(action, sign * difference, error, Estimate.of(scores, noise), incumbent, reason)
    effect = effects.posterior(difference, error, threshold)
    candidate, lesson = split_residual(incumbent, own, difference, effect, sign)
    spread = math.sqrt(effect.variance)
    reason = explained(sign * effect.mean, spread, len(scores), code_size_change)
    asked = probability(confidence, noise.freedom)
    decided = decide(effect, threshold, asked)
    if len(scores) < MOST_RUNS and not (decided == "keep" and confidence > 0.5):
        # Whoever asks for certainty has runs to spare for it.
        cost = RERUN_COST * min(1.0, 2 * (1 - confidence)) * effects.worth(error)
        if worth_rerunning(effect, threshold, noise, cost, asked):
            again: Literal["measure incumbent", "measure candidate"]
            again = "measure incumbent" if other > own else "measure candidate"
            return Judgement(again, sign * effect.mean, spread, candidate, lesson, reason)
    return Judgement(decided, sign * effect.mean, spread, candidate, lesson, reason)


def decide(effect: Posterior, threshold: float, confidence: float) -> Literal["keep", "discard"]:
    """Decide as if nothing could be measured any more."""
    return "keep" if effect.mean < threshold and effect.below >= confidence else "discard"


def worth_rerunning(
    effect: Posterior, threshold: float, noise: Noise, cost: float, confidence: float
) -> bool:
    """Return whether some number of further runs, each at a *cost*, is worth more than deciding now.

    A run moves the mean of a normal belief by a normal amount, and a keep is then worth its expected gain.
    """
    mean = effect.mean - threshold
    now = -mean if decide(effect, threshold, confidence) == "keep" else 0.0
    quantile = normal_quantile(confidence)
    for runs in AHEAD:
        learned = effect.variance**2 / (effect.variance + noise.spread**2 / runs) if effect.variance else 0.0
        moves, left = math.sqrt(learned), math.sqrt(max(effect.variance - learned, 0.0))
        if not moves:
            return False
        reach = (-quantile * left - mean) / moves
        if moves * normal_pdf(reach) - mean * normal_cdf(reach) - runs * cost > now:
            return True
    return False


def split_residual(
    incumbent: Estimate, own: float, difference: float, effect: Posterior, sign: int
) -> tuple[Estimate, Estimate]:
    """Return what to believe of the candidate and of the incumbent, given the effect between them.

    What the effect leaves of the measured difference is error, the candidate's or the incumbent's, in
    proportion to their variances.
    """
    others = incumbent.error**2
    share = others / (own**2 + others)
    shared = own**2 * share
    moved = share * (difference - effect.mean)
    candidate = math.sqrt(shared + (1 - share) ** 2 * effect.variance)
    lesson = math.sqrt(min(shared + share**2 * effect.variance, others))
    return (
        Estimate(incumbent.mean + sign * (moved + effect.mean), candidate),
        Estimate(incumbent.mean + sign * moved, lesson),
    )


def acceptance_threshold(
    code_size_change: int, price: float, noise: Noise, spent: float, least: float = 0.0
) -> float:
    """Return how much worse a candidate may be; below 0, how much better it has to be, *least* at least.

    Less code may lose what its tokens are worth, or be equal within the noise: half of it is allowed, in
    full from twenty tokens, until all such keeps of a campaign may have cost one noise together. Else
    deleting a little at a time, each time within the noise, would add up.
    """
    if code_size_change >= 0 or not price:
        return -price * code_size_change - least
    left = max(noise.spread - spent, 0.0)
    return max(
        -price * code_size_change, min(noise.spread / 2 * min(1.0, -code_size_change / FULL_ALLOWANCE), left)
    )


def min_effect(confidence: float) -> float:
    """Return the share of a score that a keep has to gain.

    Where the noise is small, it can be told with certainty that a change next to nothing is an improvement
    next to nothing. Who asks for certainty means one that matters (the smallest effect size of interest,
    Lakens, Scheel & Isager 2018, "Equivalence testing for psychological research", AMPPS 1:259).
    """
    return MIN_EFFECT * max(0.0, 2 * confidence - 1)


def explained(difference: float, error: float, runs: int, code_size_change: int) -> str:
    """Return the reason, like ``-0.0031 ± 0.0008 after 2 runs, 4 tokens shorter``."""
    text = f"{format_score(difference, '+')} ± {format_score(error)} after {runs} run{'s' * (runs > 1)}"
    if code_size_change:
        size, way = abs(code_size_change), "longer" if code_size_change > 0 else "shorter"
        text += f", {size} token{'s' * (size > 1)} {way}"
    return text


@functools.lru_cache
def normal_quantile(probability: float) -> float:
    """Return the standard normal's quantile."""
    return statistics.NormalDist().inv_cdf(min(max(probability, 1e-12), 1 - 1e-12))


@functools.lru_cache(maxsize=1024)
def probability(confidence: float, freedom: int) -> float:
    """Return the normal's probability of what is Student's quantile of *confidence*."""
    both = 2 * confidence - 1
    return normal_cdf(math.copysign(t_quantile(abs(both), freedom), both))


@functools.lru_cache(maxsize=1024)
def t_quantile(level: float, freedom: int) -> float:
    """Return how many standard errors hold *level* of Student's t around zero (Abramowitz & Stegun 26.7)."""
    low, high = 0.0, 1e4
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        angle = math.atan(middle / math.sqrt(freedom))
        term = math.cos(angle) if freedom % 2 else 1.0
        total = 0.0
        for k in range(freedom % 2, freedom - 1, 2):
            total += term
            term *= math.cos(angle) ** 2 * (k + 1) / (k + 2)
        share = math.sin(angle) * total
        if freedom % 2:
            share = (share + angle) * 2 / math.pi
        low, high = (middle, high) if share < level else (low, middle)
    return high


def tolerance(belief: Estimate, noise: Noise) -> float:
    """Return how far one fresh run may lie from the mean: two-sided 99 %, Student's t."""
    return t_quantile(0.99, noise.freedom) * math.hypot(belief.error, noise.spread) + ROUNDING


@dataclasses.dataclass(frozen=True, slots=True)
class GainEstimate:
    """A gain from fresh measurements, those that no verdict has seen."""

    gain: float
    """Final less start, in the metric's own sign."""
    margin: float
    """Half the width of its 95 % interval."""

    @classmethod
    def of(cls, start: Sequence[float], final: Sequence[float], noise: Noise) -> Self:
        """Compare fresh runs of the first and of the last version: 95 %, Student's t."""
        error = noise.spread * math.sqrt(1 / len(start) + 1 / len(final))
        return cls(statistics.fmean(final) - statistics.fmean(start), t_quantile(0.95, noise.freedom) * error)

    def __str__(self) -> str:
        return f"{format_score(self.gain, '+')} ± {format_score(self.margin)}"
