"""Verdicts from measurements."""

from __future__ import annotations

import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_autoresearch.judge import ONE_SIDED_95, TWO_SIDED_99, Noise, judge, tolerance

NOISE = Noise(spread=0.01, runs=3)


@pytest.mark.parametrize(
    ("score", "verdict", "reason"),
    [
        (0.950, "kept", "-0.0500, more than the noise of 0.0337"),
        (0.970, "discarded", "-0.0300, within the noise of 0.0337"),
        (1.000, "discarded", "no different"),
        (1.001, "discarded", "+0.0010, no better"),
    ],
)
def test_a_gain_has_to_exceed_the_noise(score: float, verdict: str, reason: str) -> None:
    found = judge([score], 1.0, 3, NOISE, "minimize")
    assert (found.verdict, found.reason) == (verdict, reason)


@given(st.floats(0.5, 1.5), st.floats(0, 0.1))
def test_maximizing_mirrors_minimizing(score: float, spread: float) -> None:
    noise = Noise(spread, 3)
    lower = judge([1.0 - score], 0.0, 3, noise, "minimize")
    higher = judge([score - 1.0], 0.0, 3, noise, "maximize")
    assert lower.verdict == higher.verdict


def test_more_runs_need_less_of_a_gain() -> None:
    once = NOISE.margin(ONE_SIDED_95, 1, 3)
    assert NOISE.margin(ONE_SIDED_95, 3, 3) < once
    assert Noise(0.01, 10).margin(ONE_SIDED_95, 1, 3) < once
    assert Noise(0.01, 1000).margin(ONE_SIDED_95, 1, 3) == Noise(0.01, 10).margin(ONE_SIDED_95, 1, 3)


def test_without_noise_any_gain_counts() -> None:
    assert judge([0.999999], 1.0, 3, Noise(0.0, 3), "minimize").verdict == "kept"
    assert tolerance(Noise(0.0, 3), 3) == pytest.approx(1e-6)


def test_chance_is_kept_and_alarms_are_false_as_seldom_as_promised() -> None:
    chance = random.Random(0)
    kept = alarms = 0
    for _ in range(4000):
        known = [chance.gauss(1, 0.01) for _ in range(3)]
        noise, mean, fresh = Noise.of(known), statistics.fmean(known), chance.gauss(1, 0.01)
        kept += judge([fresh], mean, 3, noise, "minimize").verdict == "kept"
        alarms += abs(fresh - mean) > tolerance(noise, 3)
    assert 0.04 < kept / 4000 < 0.06
    assert 0.005 < alarms / 4000 < 0.015


def test_the_quantiles_fall() -> None:
    for quantiles in (ONE_SIDED_95, TWO_SIDED_99):
        assert sorted(quantiles, reverse=True) == list(quantiles)
