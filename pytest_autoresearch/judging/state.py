"""What a campaign knows when it judges: of its incumbent, of the noise, of what effects usually are. Pure."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from pytest_autoresearch.judging import judge
from pytest_autoresearch.judging.judge import Direction, Effects, Estimate, Judgement, Noise, ObservedEffect

if TYPE_CHECKING:
    from pytest_autoresearch.settings import Settings


@dataclasses.dataclass(frozen=True, slots=True)
class JudgePolicy:
    """How the user wants proposals to be judged."""

    direction: Direction = "minimize"
    confidence: float = judge.CONFIDENCE
    """How probable an improvement has to be for a keep."""
    price: float = 0.0
    """What a token of Python costs, as a share of the score; 0 leaves the size of a script aside."""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return what the options and the ini file say."""
        confidence = judge.CONFIDENCE if settings.confidence is None else settings.confidence
        return cls(settings.direction, confidence, settings.token_price)


@dataclasses.dataclass(frozen=True, slots=True)
class JudgeState:
    """Between two trials; it follows from the opening and every trial since."""

    terms: JudgePolicy
    belief: Estimate
    """Of the incumbent's true score."""
    noise: Noise
    """From the first baseline, and every version that was run more than once in a trial since."""
    effects: Effects
    spent: float = 0.0
    """What the shorter scripts that were kept may have cost, at most but for a standard deviation."""

    @classmethod
    def opening(cls, terms: JudgePolicy, belief: Estimate, noise: Noise) -> Self:
        """Return what is known before the first trial."""
        return cls(terms, belief, noise, Effects.learned((), noise, terms.direction))

    def judge(
        self, scores: Sequence[float], incumbent_runs: Sequence[float] = (), code_size_change: int = 0
    ) -> Judgement:
        """Decide on a proposal, or ask for more.

        Args:
            scores: of its runs so far.
            incumbent_runs: of the runs that the incumbent had meanwhile.
            code_size_change: of Python that it is longer than the incumbent.
        """
        belief = self.measured(incumbent_runs)
        return judge.judge(
            scores,
            belief,
            self.noise.pooled(scores, incumbent_runs),
            self.effects,
            code_size_change=code_size_change,
            spent=self.spent,
            price=self.terms.price * abs(belief.mean),
            least=judge.min_effect(self.terms.confidence) * abs(belief.mean),
            confidence=self.terms.confidence,
            direction=self.terms.direction,
        )

    def measured(self, incumbent_runs: Sequence[float]) -> Estimate:
        """Return what to believe of the incumbent after more runs of it."""
        belief = self.belief
        for score in incumbent_runs:
            belief = belief.updated(score, self.noise)
        return belief

    def after(
        self,
        scores: Sequence[float],
        incumbent_runs: Sequence[float],
        *,
        kept: bool,
        code_size_change: int = 0,
    ) -> Self:
        """Return what is known after a trial in which the proposal and the incumbent had these scores."""
        noise, belief = self.noise.pooled(scores, incumbent_runs), self.measured(incumbent_runs)
        if not scores:
            return dataclasses.replace(self, noise=noise, belief=belief)
        judgement = self.judge(scores, incumbent_runs)
        error = math.hypot(noise.spread / math.sqrt(len(scores)), belief.error)
        seen = ObservedEffect(statistics.fmean(scores) - belief.mean, error)
        # Effects are told in units of the noise: the first that there is.
        effects = self.effects if self.effects.unit else Effects.learned((), noise, self.terms.direction)
        loss = judgement.difference if self.terms.direction == "minimize" else -judgement.difference
        risked = max(loss + judgement.error, 0.0) if kept and code_size_change < 0 else 0.0
        return dataclasses.replace(
            self,
            spent=self.spent + risked,
            noise=noise,
            belief=judgement.belief if kept else judgement.incumbent,
            effects=effects.after(seen),
        )
