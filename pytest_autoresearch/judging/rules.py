"""For which scores of a run causality is probed in every row. Rules are picklable: they travel with a run."""

from __future__ import annotations

import dataclasses
from typing import TypeAlias

from pytest_autoresearch.judging.judge import JudgeState


@dataclasses.dataclass(frozen=True, slots=True)
class MayBeKept:
    """Probe all rows if the score may lead to a keep: at once, or after another run of the incumbent."""

    state: JudgeState
    scores: tuple[float, ...]
    """Of the candidate's earlier runs."""
    incumbent_scores: tuple[float, ...]
    """Of the incumbent's runs since the last trial."""
    code_size_change: int

    def __call__(self, score: float) -> bool:
        """Tell whether all rows are probed. *score* is what the harness has computed."""
        scores = [*self.scores, score]
        return self.state.judge(scores, self.incumbent_scores, self.code_size_change).action != "discard"


@dataclasses.dataclass(frozen=True, slots=True)
class Always:
    """The same answer for every score: True for a baseline, False for an incumbent: it was probed."""

    answer: bool

    def __call__(self, score: float) -> bool:  # noqa: ARG002 - the signature of a rule
        """Return the answer."""
        return self.answer


ProbeRule: TypeAlias = MayBeKept | Always
