"""Rules that travel with a run: frozen, picklable, and called while it is made."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal, TypeAlias

from pytest_autoresearch.judging.pruning import Margins, Points, prune_reason
from pytest_autoresearch.judging.state import JudgeState


@dataclasses.dataclass(frozen=True, slots=True)
class MayBeKept:
    """Probe every row of a score that may be kept: at once, or after another run of the incumbent."""

    state: JudgeState
    scores: tuple[float, ...]
    """Of the candidate's earlier runs."""
    incumbent_scores: tuple[float, ...]
    """Of the incumbent's runs since the trial before."""
    code_size_change: int

    def __call__(self, score: float) -> bool:
        """Tell whether *score*, on the harness's books, may lead to a keep."""
        scores = [*self.scores, score]
        return self.state.judge(scores, self.incumbent_scores, self.code_size_change).action != "discard"


@dataclasses.dataclass(frozen=True, slots=True)
class Always:
    """The same answer for every score: True for a baseline, False for an incumbent, probed as it was kept."""

    answer: Literal[True, False]

    def __call__(self, score: float) -> bool:  # noqa: ARG002 - a rule's
        """Return the answer."""
        return self.answer


ProbeRule: TypeAlias = MayBeKept | Always


@dataclasses.dataclass(frozen=True, slots=True)
class PruneRule:
    """End a run whose loss is too far above the incumbent's at the same share of the budget."""

    incumbent_curve: Points
    margins: Margins

    def __call__(self, points: Sequence[float | None]) -> str | None:
        """Return in one line why a run with this loss curve so far should end; None lets it go on."""
        return prune_reason(points, self.incumbent_curve, self.margins)
