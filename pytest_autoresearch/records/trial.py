"""A trial with its verdict, as a campaign stores it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, get_args

from pytest_autoresearch.records.measurement import Measurement, mean_score
from pytest_autoresearch.records.proposal import Usage

Verdict = Literal["kept", "discarded", "crashed", "out of memory", "timeout", "refused"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
Value = float | int | str | bool


@dataclasses.dataclass(frozen=True, slots=True)
class Decision:
    """A verdict on a trial, with its reason in one line and the measurements."""

    verdict: Verdict
    reason: str
    measurements: tuple[Measurement, ...] = ()
    incumbent_runs: tuple[Measurement, ...] = ()
    """The runs of the incumbent meanwhile."""
    code_size_change: int = 0
    """How much longer its Python code is than the incumbent's, in tokens; 0 if it was not measured."""
    crashes: tuple[str, ...] = ()
    """Why it crashed before its agent repaired it, each in one line."""


@dataclasses.dataclass(frozen=True, slots=True)
class Trial:
    """One trial as the ledger holds it: a proposal, its measurements and its verdict.

    :class:`Decision` and :class:`Proposal` describe the fields that come from there.
    """

    number: int
    description: str
    verdict: Verdict
    reason: str
    commit: str
    """The trial's commit, which holds the proposed files."""
    tree: str
    """The id of the git tree that holds exactly the proposed editable files, each of mode 100644."""
    incumbent_score: float
    """The estimated score of the incumbent that it was judged against."""
    measurements: tuple[Measurement, ...] = ()
    constants: Mapping[str, Value] = dataclasses.field(default_factory=dict)
    """The script's UPPER_CASE constants on the platform of the trial, elements of tuples as ``NAME[0]``."""
    digest: str = ""
    """A digest that versions share only if they do the same, see :func:`..source.files.digest`."""
    incumbent_runs: tuple[Measurement, ...] = ()
    """The runs of the incumbent since the trial before."""
    code_size_change: int = 0
    agent: str = ""
    """The agent that proposed it; empty for a hook of the project's own."""
    hypothesis: str = ""
    usage: Usage = Usage()  # noqa: RUF009 - it is frozen
    declined_by: tuple[str, ...] = ()
    crashes: tuple[str, ...] = ()

    @property
    def score(self) -> float | None:
        """The mean score of the trial's runs; None if none of them gave one."""
        return mean_score(self.measurements) if self.measurements else None

    @property
    def is_scored(self) -> bool:
        """Whether it was measured to the end and judged: kept or discarded, with a score."""
        return self.verdict in {"kept", "discarded"} and bool(self.measurements)

    @property
    def is_kept(self) -> bool:
        """Whether it became the incumbent."""
        return self.verdict == "kept"

    @property
    def unanswered(self) -> bool:
        """Whether no agent had a proposal for it."""
        return self.verdict == "refused" and bool(self.declined_by) and not self.agent

    def to_json(self) -> dict[str, Any]:
        """Return the entry's line of ``ledger.jsonl``."""
        return {name: getattr(self, name) for name in FIELDS} | {
            "constants": dict(self.constants),
            "measurements": [run.to_json() for run in self.measurements],
            "incumbent_runs": [run.to_json() for run in self.incumbent_runs],
            "usage": self.usage.to_json(),
        }


FIELDS = tuple(field.name for field in dataclasses.fields(Trial))
