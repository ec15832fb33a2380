"""Verdicts from noisy runs."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_autoresearch.judging.effects import Effects
from pytest_autoresearch.judging.judge import MAX_RUNS, STRICT, Judgement, JudgePolicy, JudgeState
from pytest_autoresearch.judging.noise import Estimate, Noise, gain_and_margin, t_quantile, tolerance

NOISE = Noise(std=0.01, dof=20)
INCUMBENT = Estimate.of([1.0, 1.01, 0.99], NOISE)
FRESH = Effects(NOISE.std)


def learned(seen: Iterable[tuple[float, float]], noise: Noise = NOISE) -> Effects:
    effects = Effects(noise.std)
    for difference, std in seen:
        effects = effects.after(difference, std)
    return effects


class Settled(Noise):
    """Noise that is known, whatever the scores."""

    def pooled(self, *_groups: Sequence[float]) -> Self:
        return self


def judge(
    scores: Sequence[float],
    incumbent: Estimate,
    noise: Noise,
    effects: Effects,
    policy: JudgePolicy,
    *,
    code_size_change: int = 0,
) -> Judgement:
    state = JudgeState(policy, incumbent, Settled(noise.std, noise.dof), effects)
    return state.judge(scores, code_size_change=code_size_change)


def judged(
    *scores: float,
    incumbent: Estimate = INCUMBENT,
    effects: Effects = FRESH,
    code_size_change: int = 0,
    **policy: Any,
) -> Judgement:
    return judge(scores, incumbent, NOISE, effects, JudgePolicy(**policy), code_size_change=code_size_change)


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "judge.py"
    spec = importlib.util.spec_from_file_location("simulated_campaigns", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_nothing_is_decided_without_a_run() -> None:
    assert judged().action == "measure candidate"


def test_a_clear_gain_is_kept_and_a_clear_loss_discarded() -> None:
    assert judged(0.9).action == "keep"
    assert judged(1.1).action == "discard"


def test_thin_evidence_asks_for_another_run() -> None:
    assert judged(0.975, confidence=STRICT).action.startswith("measure")


def test_what_is_known_least_is_measured_again() -> None:
    vague, sharp = Estimate(1.0, 0.02), Estimate(1.0, 0.001)
    assert judged(0.975, incumbent=vague, confidence=STRICT).action == "measure incumbent"
    assert judged(0.975, incumbent=sharp, confidence=STRICT).action == "measure candidate"


def test_a_proposal_is_not_measured_forever() -> None:
    assert judged(*[0.995] * MAX_RUNS, confidence=0.999999).action == "discard"


def test_more_runs_sharpen_the_verdict() -> None:
    assert judged(0.99, 0.99, 0.99, 0.99).std < judged(0.99).std


def test_a_lucky_run_is_shrunk_towards_the_incumbent() -> None:
    lucky = judged(0.975)
    assert 0.975 < lucky.candidate.mean < 1.0
    assert -0.025 < lucky.difference < 0


def test_fifty_discards_raise_the_evidence_asked_for() -> None:
    taught = learned([(0.002 + 0.0002 * trial, 0.0115) for trial in range(50)], NOISE)
    scores = [0.98] * 4
    assert judged(*scores).action == "keep"
    assert judged(*scores, effects=taught).action != "keep"
    assert judged(*scores, effects=taught).difference > judged(*scores).difference


def test_improvements_lower_the_evidence_asked_for() -> None:
    gains = [(-0.02 - 0.001 * trial, 0.0115) for trial in range(50)]
    assert judged(0.995, effects=learned(gains, NOISE)).difference < judged(0.995).difference


def test_each_trial_counts_once_and_the_weights_sum_to_one() -> None:
    seen = [(0.03, 0.01), (-0.01, 0.012), (0.0, 0.01)]
    for trials in range(4):
        effects = learned(seen[:trials])
        assert sum(map(sum, effects.counts)) == pytest.approx(trials)
        assert sum(map(sum, effects.weights)) == pytest.approx(1)


def test_an_incumbent_that_is_beaten_too_easily_had_unlucky_runs() -> None:
    lesson = judged(0.985, confidence=STRICT).incumbent
    assert lesson.mean < INCUMBENT.mean
    assert lesson.std < INCUMBENT.std


def test_growth_has_to_be_paid_for_by_a_gain() -> None:
    assert judged(0.95, code_size_change=10, code_size_price=0.001).action == "keep"
    assert judged(0.95, code_size_change=100, code_size_price=0.001).action == "discard"
    assert judged(0.95, code_size_change=100, code_size_price=0.0).action == "keep"


def test_less_code_is_kept_when_it_is_equal_within_the_noise() -> None:
    equal = [1.0] * 8
    assert judged(*equal, code_size_change=-20, code_size_price=1e-6).action == "keep"
    assert judged(*equal, code_size_change=-20, code_size_price=0.0).action != "keep"
    assert judged(1.1, code_size_change=-20, code_size_price=1e-6).action == "discard"


def test_deleting_a_token_at_a_time_is_no_ratchet() -> None:
    worse = [1.003] * MAX_RUNS
    sharp = Estimate(1.0, 0.0005)
    assert judged(*worse, incumbent=sharp, code_size_change=-20, code_size_price=1e-9).action == "keep"
    assert judged(*worse, incumbent=sharp, code_size_change=-1, code_size_price=1e-9).action == "discard"


def test_without_noise_any_gain_counts() -> None:
    silent = Noise.of([1.0, 1.0, 1.0])
    effects = learned([(0.1, 0.0)], silent)
    incumbent = Estimate.of([1.0], silent)
    policy = JudgePolicy(code_size_price=1e-9)
    assert judge([1.0 - 1e-9], incumbent, silent, effects, policy).action == "keep"
    assert judge([1.0], incumbent, silent, effects, policy).action == "discard"
    assert judge([1.0], incumbent, silent, effects, policy, code_size_change=-1).action == "keep"
    assert incumbent.updated(1.0, silent) == incumbent


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=4),
    st.floats(1e-12, 1e3),
    st.floats(0, 1e3),
    st.integers(-500, 500),
)
def test_nothing_is_ever_not_a_number(scores: list[float], std: float, error: float, tokens: int) -> None:
    noise = Noise(std, 2)
    effects = learned([(score, std) for score in scores], noise)
    found = judge(
        scores,
        Estimate(1.0, error),
        noise,
        effects,
        JudgePolicy(code_size_price=1e-6),
        code_size_change=tokens,
    )
    figures = (found.difference, found.std, found.candidate.mean, found.candidate.std, found.incumbent.mean)
    assert all(map(math.isfinite, figures))


@given(
    st.lists(st.floats(0.9, 1.1), min_size=1, max_size=3),
    st.floats(1e-4, 0.1),
    st.integers(-50, 50),
    st.floats(0.1, 0.99),
)
def test_maximizing_mirrors_minimizing(
    scores: list[float], std: float, tokens: int, confidence: float
) -> None:
    noise = Noise(std, 2)
    effects = learned([(0.02, std), (-0.01, std)], noise)
    policy = JudgePolicy(confidence=confidence, code_size_price=1e-5)
    lower = judge(scores, Estimate(1.0, std / 2), noise, effects, policy, code_size_change=tokens)
    policy = dataclasses.replace(policy, direction="maximize")
    higher = judge(
        [-score for score in scores], Estimate(-1.0, std / 2), noise, effects, policy, code_size_change=tokens
    )
    assert higher.action == lower.action
    assert higher.difference == -lower.difference
    assert (higher.candidate.mean, higher.candidate.std) == (-lower.candidate.mean, lower.candidate.std)
    assert higher.incumbent.mean == -lower.incumbent.mean


def test_the_reason_is_one_line() -> None:
    found = judged(0.95, 0.95, code_size_change=-4, code_size_price=1e-6)
    assert found.reason == f"{found.difference:+.4f} ± {found.std:.4f} after 2 runs, 4 tokens shorter"


def test_noise_is_pooled_around_the_mean_of_each_group() -> None:
    assert Noise.of([1.0, 3.0], [11.0, 13.0], [50.0]) == Noise(math.sqrt(2), 2)
    assert Noise.of([1.0, 3.0]).pooled([11.0, 13.0], []) == Noise.of([1.0, 3.0], [11.0, 13.0])
    assert NOISE.pooled([1.0]) is NOISE
    with pytest.raises(ValueError, match="two runs"):
        Noise.of([1.0], [2.0])


def test_an_estimate_updated_run_by_run_is_the_mean_of_them() -> None:
    scores = [1.0, 1.02, 0.97]
    estimate = Estimate.of(scores[:1], NOISE)
    for score in scores[1:]:
        estimate = estimate.updated(score, NOISE)
    assert estimate.mean == pytest.approx(statistics.fmean(scores))
    assert estimate.std == pytest.approx(Estimate.of(scores, NOISE).std)


@pytest.mark.parametrize(
    ("level", "dof", "quantile"),
    [(0.95, 1, 12.706), (0.95, 2, 4.303), (0.95, 30, 2.042), (0.99, 2, 9.925), (0.99, 5, 4.032)],
)
def test_students_t_is_that_of_the_tables(level: float, dof: int, quantile: float) -> None:
    assert t_quantile(level, dof) == pytest.approx(quantile, abs=6e-4)


def test_a_figure_may_differ_by_the_noise_of_one_run_and_by_its_own() -> None:
    assert tolerance(Estimate(1.0, 0.0), Noise(0.01, 2)) == pytest.approx(0.09925, rel=1e-3)
    assert tolerance(Estimate(1.0, 0.01), Noise(0.01, 2)) == pytest.approx(0.09925 * math.sqrt(2), rel=1e-3)


def test_a_claim_has_an_interval() -> None:
    claim = gain_and_margin([1.0, 1.02], [0.9, 0.92], Noise(0.01, 4))
    assert claim == pytest.approx((-0.1, 0.0278), abs=5e-5)


def test_simulated_campaigns_gain_more_than_greedy_ones(simulation: ModuleType) -> None:
    for noise in (0.0007, 0.002):
        greedy = statistics.fmean(simulation.greedy(seed, noise).gain for seed in range(30))
        ours = statistics.fmean(simulation.ours(seed, noise, 0.4).gain for seed in range(30))
        assert ours > greedy


def test_strict_campaigns_keep_few_proposals_that_change_nothing(simulation: ModuleType) -> None:
    for noise in (0.0001, 0.002):  # a noise as large as what changes nothing, and a much larger one
        outcomes = [simulation.ours(seed, noise, STRICT) for seed in range(30)]
        assert sum(found.nulls for found in outcomes) <= 0.05 * sum(found.null for found in outcomes)
