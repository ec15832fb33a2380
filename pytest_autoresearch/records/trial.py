"""What was tried: a trial with its verdict, as a campaign stores it."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Mapping
from typing import Any, Literal, Self, get_args

from pytest_autoresearch.records.measurement import Measurement, mean_score
from pytest_autoresearch.records.proposal import Usage

Verdict = Literal["kept", "discarded", "crashed", "out of memory", "timeout", "refused"]
VERDICTS: tuple[str, ...] = get_args(Verdict)
Value = float | int | str | bool


@dataclasses.dataclass(frozen=True, slots=True)
class Decision:
    """A verdict on a trial, with its reason in one line and what was measured."""

    verdict: Verdict
    reason: str
    measurements: tuple[Measurement, ...] = ()
    incumbent_runs: tuple[Measurement, ...] = ()
    """The runs that the incumbent had meanwhile."""
    code_size_change: int = 0
    """Of Python that the proposal is longer than the incumbent."""
    crashes: tuple[str, ...] = ()
    """Why it crashed before its agent mended it, each in one line."""


@dataclasses.dataclass(frozen=True, slots=True)
class Trial:
    """One trial as the ledger holds it: a proposal, its measurements and its verdict."""

    number: int
    description: str
    verdict: Verdict
    reason: str
    """Why, in one line."""
    commit: str
    """The trial's commit; its tree holds the proposed script."""
    blob: str
    """The git blob of the proposed script."""
    incumbent_score: float
    """What was believed of the score of the incumbent that the trial was judged against."""
    measurements: tuple[Measurement, ...] = ()
    constants: Mapping[str, Value] = dataclasses.field(default_factory=dict)
    """The script's UPPER_CASE constants on the platform of the trial, elements of tuples as ``NAME[0]``."""
    digest: str = ""
    """A digest that the script shares with those that do the same."""
    incumbent_runs: tuple[Measurement, ...] = ()
    """The runs that the incumbent had since the trial before."""
    code_size_change: int = 0
    """Of Python that the script is longer than the incumbent's, if it was measured."""
    agent: str = ""
    """Who proposed it, where that is no hook of the project's own."""
    hypothesis: str = ""
    """Why it should have helped."""
    usage: Usage = Usage()  # noqa: RUF009 - it is frozen
    """What the proposal has cost."""
    declined_by: tuple[str, ...] = ()
    """Which agents had no answer when they were asked for it, and why."""
    crashes: tuple[str, ...] = ()
    """Why it crashed before its agent mended it."""

    @property
    def score(self) -> float | None:
        """The mean score of the trial's runs; None if none of them gave one."""
        return mean_score(self.measurements) if self.measurements else None

    @property
    def unanswered(self) -> bool:
        """Whether no agent had a proposal for it."""
        return self.verdict == "refused" and bool(self.declined_by) and not self.agent

    def written_as(self, commit: str) -> Self:
        """Return the entry with its commit, which is only known when the message is written."""
        return dataclasses.replace(self, commit=commit)

    def to_json(self) -> dict[str, Any]:
        """Return the entry's line of ``ledger.jsonl``, in which the runs are full objects."""
        document = dict(zip(FIELDS, _fields(self), strict=True))
        return document | {
            "constants": dict(self.constants),
            "measurements": [run.to_json() for run in self.measurements],
            "incumbent_runs": [run.to_json() for run in self.incumbent_runs],
            "usage": self.usage.to_json(),
        }


FIELDS = tuple(field.name for field in dataclasses.fields(Trial))
_fields = operator.attrgetter(*FIELDS)
