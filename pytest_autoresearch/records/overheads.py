"""What a run takes beside its training, and how much more than the baseline's runs it may take.

The budget does not count this work, so extra work here must bring nothing: a run could learn from other texts
while it starts up, or hand in a model that looks its answers up while it is scored. The limit is what the
committed script took, with a margin.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Self

ClockKind = Literal["calibrated", "cpu", "wall"]
"""What a budget is counted in: CPU time of all processes of a run, the same corrected for the speed of the
machine (``calibrated``), or wall time."""

# Times the baseline's. More is charged to the budget, so the margin is only for noise. The wall time of
# compilers is noisier than CPU time.
STARTUP: Mapping[ClockKind, float] = {"calibrated": 1.1, "cpu": 1.1, "wall": 1.3}
SEALING, SEALING_AT_LEAST = 5.0, 5.0  # times the baseline's; seconds
PREDICTING, PREDICTING_AT_LEAST = 8.0, 2.0  # times the baseline's; seconds
NODES, NODES_AT_LEAST = 16, 2_000  # times the baseline's; nodes

KEYS = ("startup_seconds", "sealing_seconds", "predicting_seconds", "graph_nodes")  # of a JSON object


@dataclasses.dataclass(frozen=True, slots=True)
class Overheads:
    """What one run took beside its training, or several: their median start-up, and else the largest."""

    startup: float
    """Seconds on the clock, from the start of the process to its training data."""
    sealing: float
    """Seconds on the clock, from the digest of the model to the model."""
    predicting: float
    """Seconds of the scorer's pass over the validation data: CPU time, or wall time on an accelerator."""
    nodes: int
    """Nodes of the model's graph."""

    @classmethod
    def typical(cls, runs: Iterable[Self | None]) -> Self | None:
        """Return what several runs of a committed script took; None if no run says so."""
        known = [run for run in runs if run is not None]
        if not known:
            return None
        return cls(
            statistics.median_low(one.startup for one in known),  # the first one may find the disk cold
            max(one.sealing for one in known),
            max(one.predicting for one in known),
            max(one.nodes for one in known),
        )

    def startup_allowed(self, clock: ClockKind) -> float:
        """Return the seconds of start-up that are not charged to the budget."""
        return STARTUP[clock] * self.startup

    @property
    def sealing_allowed(self) -> float:
        """The seconds of sealing after which a run is ended."""
        return max(SEALING * self.sealing, SEALING_AT_LEAST)

    @property
    def predicting_allowed(self) -> float:
        """The seconds that a model may predict for, in one pass over the validation data."""
        return max(PREDICTING * self.predicting, PREDICTING_AT_LEAST)

    @property
    def nodes_allowed(self) -> int:
        """The nodes that a graph may have."""
        return max(NODES * self.nodes, NODES_AT_LEAST)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return dict(zip(KEYS, (round(figure, 3) for figure in dataclasses.astuple(self)), strict=True))

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Rebuild what :meth:`to_json` gave.

        Raises:
            ValueError: it is something else.
        """
        try:
            startup, sealing, predicting, nodes = (float(document[key]) for key in KEYS)
        except (KeyError, TypeError) as error:
            raise ValueError(f"{document!r} is not what a run takes: {error}") from error
        if not all(0 <= figure < math.inf for figure in (startup, sealing, predicting, nodes)):
            raise ValueError(f"{document!r} is not what a run takes")
        return cls(startup, sealing, predicting, int(nodes))
