"""The decision on a proposal: keep, discard, or measure again. Pure.

    δ         true effect of the proposal, see :mod:`~pytest_autoresearch.judging.effects`
    θ         acceptance threshold of δ, see :meth:`JudgeState.acceptance_threshold`
    p         confidence: the probability P(δ < θ) that a keep needs
    v         variance of δ, given the runs so far
    s, n      noise of one run; number of further runs

A proposal is kept if E[δ] < θ and P(δ < θ) ≥ p. It is measured again while n further runs, for some n, are
worth more than the same runs of new proposals: the knowledge gradient, several runs ahead (Frazier & Powell
2010, "Paradoxes in learning and the marginal value of information", Decision Analysis 7:378), in a normal
approximation: n runs move the mean by a normal amount with the variance v² / (v + s²/n).

Each proposal, kept or not, also says something about the incumbent: an incumbent that most proposals seem to
beat had unlucky runs.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence
from typing import Literal, Self, TypeAlias

from pytest_autoresearch.judging.effects import OUTLIER, Effects, Posterior
from pytest_autoresearch.judging.noise import Estimate, Noise, normal_cdf, normal_pdf, t_quantile
from pytest_autoresearch.records.measurement import format_score
from pytest_autoresearch.records.spec import Direction

CONFIDENCE = 0.4
"""The default of p; benchmarks/judge.py shows what other values gain."""
STRICT = 0.95
MIN_EFFECT = 0.0002
"""The smallest effect of interest at full confidence, as a share of the score."""
MAX_RUNS = 16  # of one proposal, not counting the incumbent's
RERUN_COST = 0.6  # of a run, as a share of the expected gain of a new proposal's run
LOOKAHEAD = 1, 2, 4, 8  # values of n
FULL_LENIENCY = 20  # tokens of code removed, from which half a noise may be lost

Action: TypeAlias = Literal["keep", "discard", "measure candidate", "measure incumbent"]


@dataclasses.dataclass(frozen=True, slots=True)
class JudgePolicy:
    """How the user wants proposals to be judged."""

    direction: Direction = "minimize"
    confidence: float = CONFIDENCE
    """The probability of an improvement that a keep needs."""
    code_size_price: float = 0.0
    """What a token more has to gain, as a share of the score; 0 ignores code size."""

    @property
    def sign(self) -> Literal[1, -1]:
        """-1 if a higher score is better."""
        return 1 if self.direction == "minimize" else -1


@dataclasses.dataclass(frozen=True, slots=True)
class Judgement:
    """What to do with a proposal, and why."""

    action: Action
    difference: float
    """The expected effect, in the metric's own sign."""
    std: float
    """Its standard deviation."""
    candidate: Estimate
    """Of the candidate's score: the incumbent's from now on, if the candidate is kept."""
    incumbent: Estimate
    """Of the incumbent's score, with what the comparison says about it."""
    reason: str
    """One line, like ``-0.0031 ± 0.0008 after 2 runs, 4 tokens shorter``."""


@dataclasses.dataclass(frozen=True, slots=True)
class JudgeState:
    """What is known between two trials. It follows from the first baseline and every trial since."""

    policy: JudgePolicy
    incumbent: Estimate
    noise: Noise
    """From the first baseline, and from every version that was run more than once in a trial since."""
    effects: Effects
    simplicity_budget_used: float = 0.0
    """What keeps of shorter code have cost so far, each at one standard deviation above its expected cost."""

    @classmethod
    def initial(cls, policy: JudgePolicy, incumbent: Estimate, noise: Noise) -> Self:
        """Return the state before the first trial."""
        return cls(policy, incumbent, noise, Effects(noise.std))

    def judge(
        self, scores: Sequence[float], incumbent_scores: Sequence[float] = (), code_size_change: int = 0
    ) -> Judgement:
        """Decide on a candidate, or ask for another run.

        Args:
            scores: of the candidate's runs so far, none or more.
            incumbent_scores: of the incumbent's runs since the last trial.
            code_size_change: the candidate's code size less the incumbent's, in tokens.
        """
        incumbent, noise = self.incumbent_after(incumbent_scores), self.noise.pooled(scores, incumbent_scores)
        if not scores:
            unknown = Estimate(incumbent.mean, math.inf)
            return Judgement("measure candidate", 0.0, math.inf, unknown, incumbent, "not measured yet")
        policy, effects, sign = self.policy, self.effects, self.policy.sign
        difference = sign * (statistics.fmean(scores) - incumbent.mean)
        own_std = noise.std / math.sqrt(len(scores))
        std = math.hypot(own_std, incumbent.std)
        threshold = self.acceptance_threshold(incumbent, noise, code_size_change)
        action: Action
        if not effects.unit or std < effects.unit / OUTLIER or abs(difference) > OUTLIER * effects.unit:
            action = "keep" if difference < threshold else "discard"
            reason = describe(sign * difference, std, len(scores), code_size_change)
            return Judgement(action, sign * difference, std, Estimate.of(scores, noise), incumbent, reason)
        effect = effects.posterior(difference, std, threshold)
        both = 2 * policy.confidence - 1
        # Beyond 7 a normal has no weight left.
        quantile = math.copysign(min(t_quantile(abs(both), noise.dof), 7.0), both)
        action = decide(effect, threshold, quantile)
        # A keep at a high confidence is certain enough. A high confidence also makes further runs cheaper.
        if len(scores) < MAX_RUNS and not (action == "keep" and policy.confidence > 0.5):
            cost = RERUN_COST * min(1.0, 2 * (1 - policy.confidence)) * effects.expected_gain(std)
            if worth_rerunning(effect, threshold, noise, cost, quantile):
                action = "measure incumbent" if incumbent.std > own_std else "measure candidate"
        estimates = split_residual(incumbent, own_std, difference, effect, sign)
        effect_std = math.sqrt(effect.variance)
        reason = describe(sign * effect.mean, effect_std, len(scores), code_size_change)
        return Judgement(action, sign * effect.mean, effect_std, *estimates, reason)

    def acceptance_threshold(self, incumbent: Estimate, noise: Noise, code_size_change: int) -> float:
        """Return θ: above 0, how much worse a candidate may be; below 0, how much better it has to be.

        A longer candidate has to gain the price of its tokens. A shorter one may lose it, or half a noise (in
        proportion, if it is shorter by less than 20 tokens). All such keeps of a campaign together may have
        cost one noise, the simplicity budget; otherwise many small deletions, each within the noise, would
        add up.

        At a low noise, a tiny improvement can be certain. A user who asks for certainty asks for a gain that
        matters: the smallest effect size of interest (Lakens, Scheel & Isager 2018, "Equivalence testing for
        psychological research", AMPPS 1:259). A shorter candidate does not need it.
        """
        level = abs(incumbent.mean)
        worth = -self.policy.code_size_price * level * code_size_change
        if worth <= 0:
            return worth - MIN_EFFECT * max(0.0, 2 * self.policy.confidence - 1) * level
        lenient = noise.std / 2 * min(1.0, -code_size_change / FULL_LENIENCY)
        return max(worth, min(lenient, max(noise.std - self.simplicity_budget_used, 0.0)))

    def incumbent_after(self, scores: Sequence[float]) -> Estimate:
        """Return the estimate of the incumbent's score after more runs of it."""
        estimate = self.incumbent
        for score in scores:
            estimate = estimate.updated(score, self.noise)
        return estimate

    def after(
        self,
        scores: Sequence[float],
        incumbent_scores: Sequence[float],
        *,
        kept: bool,
        code_size_change: int = 0,
    ) -> Self:
        """Return the state after a trial with these scores; the arguments are those of :meth:`judge`."""
        noise, incumbent = self.noise.pooled(scores, incumbent_scores), self.incumbent_after(incumbent_scores)
        if not scores:
            return dataclasses.replace(self, noise=noise, incumbent=incumbent)
        judgement = self.judge(scores, incumbent_scores)
        std = math.hypot(noise.std / math.sqrt(len(scores)), incumbent.std)
        difference = self.policy.sign * (statistics.fmean(scores) - incumbent.mean)
        # The unit of effects is the first noise above 0.
        effects = self.effects if self.effects.unit else Effects(noise.std)
        loss = self.policy.sign * judgement.difference + judgement.std
        cost = max(loss, 0.0) if kept and code_size_change < 0 else 0.0
        return dataclasses.replace(
            self,
            simplicity_budget_used=self.simplicity_budget_used + cost,
            noise=noise,
            incumbent=judgement.candidate if kept else judgement.incumbent,
            effects=effects.after(difference, std),
        )


def decide(effect: Posterior, threshold: float, quantile: float) -> Literal["keep", "discard"]:
    """Decide without further runs."""
    return "keep" if effect.mean < threshold and effect.below >= normal_cdf(quantile) else "discard"


def worth_rerunning(effect: Posterior, threshold: float, noise: Noise, cost: float, quantile: float) -> bool:
    """Tell whether some number of further runs, each at a *cost*, is worth more than deciding now."""
    mean = effect.mean - threshold
    now = -mean if decide(effect, threshold, quantile) == "keep" else 0.0
    for runs in LOOKAHEAD:
        learned = effect.variance**2 / (effect.variance + noise.std**2 / runs) if effect.variance else 0.0
        moves, left = math.sqrt(learned), math.sqrt(max(effect.variance - learned, 0.0))
        if not moves:
            return False
        reach = (-quantile * left - mean) / moves
        if moves * normal_pdf(reach) - mean * normal_cdf(reach) - runs * cost > now:
            return True
    return False


def split_residual(
    incumbent: Estimate, own_std: float, difference: float, effect: Posterior, sign: int
) -> tuple[Estimate, Estimate]:
    """Return the estimates of the candidate and of the incumbent, given the effect between them.

    What the effect does not explain of the measured difference is an error of either, in proportion to their
    variances.
    """
    variance = incumbent.std**2
    share = variance / (own_std**2 + variance)
    common = own_std**2 * share
    shift = share * (difference - effect.mean)
    candidate_std = math.sqrt(common + (1 - share) ** 2 * effect.variance)
    incumbent_std = math.sqrt(min(common + share**2 * effect.variance, variance))
    return (
        Estimate(incumbent.mean + sign * (shift + effect.mean), candidate_std),
        Estimate(incumbent.mean + sign * shift, incumbent_std),
    )


def describe(difference: float, std: float, runs: int, code_size_change: int) -> str:
    """Return the reason of a judgement."""
    text = f"{format_score(difference, '+')} ± {format_score(std)} after {runs} run{'s' * (runs > 1)}"
    if code_size_change:
        size, way = abs(code_size_change), "longer" if code_size_change > 0 else "shorter"
        text += f", {size} token{'s' * (size > 1)} {way}"
    return text
