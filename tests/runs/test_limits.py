"""What a sealed run is held to, in numbers."""

from __future__ import annotations

import pytest

from pytest_autoresearch.records.overheads import ClockKind
from pytest_autoresearch.runs.limits import SealedLimits


@pytest.mark.parametrize(("clock", "least"), [("calibrated", 200), ("cpu", 200), ("wall", 600)])
def test_a_short_budget_leaves_time_to_score(clock: ClockKind, least: float) -> None:
    assert SealedLimits(40, clock).scoring_seconds >= least
    assert SealedLimits(300, clock).scoring_seconds == SealedLimits(40, clock).scoring_seconds + 520
