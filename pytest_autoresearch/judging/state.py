"""What a campaign knows when it judges: the incumbent, the noise, the effects of proposals. Pure."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence
from typing import Self

from pytest_autoresearch.judging.effects import Effects
from pytest_autoresearch.judging.judge import Judgement, JudgePolicy, judge
from pytest_autoresearch.judging.noise import Estimate, Noise


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
        return cls(policy, incumbent, noise, Effects.initial(noise))

    def judge(
        self, scores: Sequence[float], incumbent_scores: Sequence[float] = (), code_size_change: int = 0
    ) -> Judgement:
        """Decide on a candidate, or ask for another run.

        Args:
            scores: of the candidate's runs so far.
            incumbent_scores: of the incumbent's runs since the last trial.
            code_size_change: the candidate's code size less the incumbent's, in tokens.
        """
        return judge(
            scores,
            self.incumbent_after(incumbent_scores),
            self.noise.pooled(scores, incumbent_scores),
            self.effects,
            self.policy,
            code_size_change=code_size_change,
            simplicity_budget_used=self.simplicity_budget_used,
        )

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
        effects = self.effects if self.effects.unit else Effects.initial(noise)
        loss = self.policy.sign * judgement.difference + judgement.std
        cost = max(loss, 0.0) if kept and code_size_change < 0 else 0.0
        return dataclasses.replace(
            self,
            simplicity_budget_used=self.simplicity_budget_used + cost,
            noise=noise,
            incumbent=judgement.candidate if kept else judgement.incumbent,
            effects=effects.after(difference, std),
        )
