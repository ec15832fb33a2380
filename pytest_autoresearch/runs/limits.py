"""The limits of a sealed run, phase by phase."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping

from pytest_autoresearch.records.overheads import ClockKind, Overheads


class Phase(enum.Enum):
    """What a sealed run is doing, in this order."""

    START_UP = "start-up"
    """Until it opens its first training data."""
    TRAINING = "training"
    """Until it names the digest of its model."""
    SEALING = "sealing"
    """Until it hands in the model."""
    ENDING = "ending"


# Seconds on the clock for compiling and for sealing, whatever the baseline took.
PHASE_LIMITS: Mapping[ClockKind, Mapping[Phase, float]] = {
    "calibrated": {Phase.START_UP: 120.0, Phase.SEALING: 60.0},
    "cpu": {Phase.START_UP: 120.0, Phase.SEALING: 60.0},
    "wall": {Phase.START_UP: 180.0, Phase.SEALING: 120.0},
}
MAX_WALL = 300.0  # seconds of wall time for start-up and for sealing, however busy the machine is
MAX_WALL_ENDING = 10.0
# Wall time per second of a budget that is not counted in wall time: the core may be slow and shared.
MAX_WALL_PER_BUDGET: Mapping[ClockKind, float] = {"calibrated": 5.0, "cpu": 2.0}
MAX_WALL_MARGIN = 30.0  # seconds on top of that
GRACE, GRACE_SHARE = 1.5, 0.02  # overtime for the last step: seconds, and a share of the budget
# Seconds of wall time for one answer of the scorer, and budgets added to it. The baseline's figures limit
# what a model may take; this only ends a scorer that hangs. No honest model may come near it: an accelerator
# scores 320 times as much text, may be a slow one, and may have to score again in float32.
SCORING: Mapping[ClockKind, float] = {"calibrated": 120.0, "cpu": 120.0, "wall": 600.0}
SCORING_PER_BUDGET = 2.0


@dataclasses.dataclass(frozen=True, slots=True)
class SealedLimits:
    """What every run of a sealed experiment is held to."""

    budget: float
    """Seconds of training, on *clock*."""
    clock: ClockKind

    @property
    def training_seconds_allowed(self) -> float:
        """Seconds on the clock after which training is ended."""
        return self.budget * (1 + GRACE_SHARE) + GRACE

    @property
    def scoring_seconds(self) -> float:
        """Seconds of wall time after which one answer of the scorer is given up."""
        return SCORING[self.clock] + SCORING_PER_BUDGET * self.budget

    @property
    def wall_seconds(self) -> float:
        """Seconds of wall time that a run may take if it is slow in every phase, without its scoring."""
        return sum(map(self.phase_wall_seconds, Phase))

    def phase_seconds(self, phase: Phase, baseline: Overheads | None) -> float:
        """Return the seconds on the clock that a phase may take, given what the *baseline* took."""
        if phase is Phase.TRAINING:
            return self.training_seconds_allowed
        limit = PHASE_LIMITS[self.clock].get(phase, float("inf"))
        if phase is Phase.SEALING and baseline is not None:
            limit = min(limit, baseline.sealing_allowed)
        return limit

    def phase_wall_seconds(self, phase: Phase) -> float:
        """Return the seconds of wall time that a phase may take."""
        match phase:
            case Phase.TRAINING if self.clock in MAX_WALL_PER_BUDGET:
                return MAX_WALL_PER_BUDGET[self.clock] * self.budget + MAX_WALL_MARGIN
            case Phase.TRAINING:
                return self.training_seconds_allowed
            case Phase.ENDING:
                return MAX_WALL_ENDING
        return MAX_WALL
