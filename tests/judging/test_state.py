"""What a campaign knows follows from its trials alone, each giving the next one's state."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_autoresearch.judging.judge import STRICT, JudgePolicy, JudgeState
from pytest_autoresearch.judging.noise import Estimate, Noise

OPENING = Noise(std=0.01, dof=2)
START = JudgeState.initial(JudgePolicy(), Estimate(1.0, 0.006), OPENING)

scores = st.lists(st.floats(0.9, 1.1), max_size=4).map(tuple)
trials = st.lists(st.tuples(scores, scores, st.booleans()), max_size=6)


def after(state: JudgeState, *steps: tuple[tuple[float, ...], tuple[float, ...], bool]) -> JudgeState:
    """The state after trials: scores of the proposal, of the incumbent meanwhile, and the verdict."""
    for own, again, kept in steps:
        state = state.after(own, again, kept=kept and bool(own))
    return state


@given(trials, trials)
def test_the_same_trials_give_the_same_state(
    before: list[tuple[tuple[float, ...], tuple[float, ...], bool]],
    behind: list[tuple[tuple[float, ...], tuple[float, ...], bool]],
) -> None:
    whole = after(START, *before, *behind)
    assert after(after(START, *before), *behind) == whole
    counted = sum(map(sum, whole.effects.counts))
    assert counted == pytest.approx(sum(bool(own) for own, _, _ in before + behind))
    assert 0 < whole.incumbent.std < math.inf
    assert whole.noise.std > 0


@given(scores, scores)
def test_judging_changes_nothing(own: tuple[float, ...], again: tuple[float, ...]) -> None:
    state = after(START, ((1.02,), (), False))
    copy = dataclasses.replace(state)
    assert state.judge(own, again) == state.judge(own, again)
    assert state == copy


def test_another_run_of_the_incumbent_is_taken_in() -> None:
    known = START.incumbent_after([0.98])
    assert 0.98 < known.mean < 1.0
    assert known.std < START.incumbent.std
    assert START.incumbent_after([]) == START.incumbent
    without_a_score = START.after((), [0.98], kept=False)
    assert without_a_score == dataclasses.replace(START, incumbent=known)


def test_the_noise_is_that_of_every_version_that_was_run_again() -> None:
    discarded = after(START, ((1.05, 1.05, 1.05), (), False))
    assert discarded.noise.dof == 4
    assert discarded.noise.std == pytest.approx(0.01 * math.sqrt(2 / 4))
    assert after(discarded, ((1.2,), (1.0,), False)).noise == discarded.noise  # single runs say nothing of it
    both = after(START, ((0.9, 0.9), (1.0, 1.0), True))  # of two versions
    assert both.noise.dof == 4


def test_what_is_kept_is_believed_in_less_than_it_scored() -> None:
    kept = after(START, ((0.95,), (), True))
    assert 0.95 < kept.incumbent.mean < 1.0
    assert kept.incumbent == START.judge([0.95]).candidate


def test_what_is_discarded_says_something_of_the_incumbent() -> None:
    discarded = after(START, ((1.03,), (), False))
    assert discarded.incumbent == START.judge([1.03]).incumbent
    assert discarded.incumbent.mean != START.incumbent.mean
    assert abs(discarded.incumbent.mean - START.incumbent.mean) < 0.01


def test_a_trial_is_compared_with_what_is_known_by_then() -> None:
    late = after(START, ((0.97,), (0.97, 0.97, 0.97), False))
    early = after(START, ((0.97,), (), False))
    better = [sum(better for _, better, _ in state.effects.counts) for state in (late, early)]
    assert better[0] < better[1]


def test_many_failures_ask_for_more_evidence() -> None:
    hopeful = START.judge([0.98])
    effects = after(START, *[((1.02,), (), False)] * 30).effects
    doubtful = dataclasses.replace(START, effects=effects).judge([0.98])
    assert doubtful.difference > hopeful.difference


def test_a_higher_score_may_be_the_better_one() -> None:
    higher = JudgeState.initial(JudgePolicy(direction="maximize"), START.incumbent, OPENING)
    assert higher.judge([1.1]).action == "keep"
    assert higher.judge([0.9]).action == "discard"
    up, down = after(higher, ((1.1,), (), True)), after(START, ((0.9,), (), True))
    assert up.incumbent.mean == pytest.approx(2 - down.incumbent.mean)
    assert sum(up.effects.counts, ()) == pytest.approx(sum(down.effects.counts, ()))  # improvements, both


def test_a_token_costs_a_share_of_the_score() -> None:
    exact = JudgeState.initial(JudgePolicy(code_size_price=1e-3), Estimate(200.0, 0.0), Noise(0.0, 2))
    assert exact.judge([199.0], code_size_change=4).action == "keep"  # 0.8 of 1
    assert exact.judge([199.0], code_size_change=6).action == "discard"  # 1.2 of 1
    free = dataclasses.replace(exact, policy=JudgePolicy())
    assert free.judge([199.0], code_size_change=6).action == "keep"


def test_the_confidence_is_that_of_the_policy() -> None:
    strict = dataclasses.replace(START, policy=JudgePolicy(confidence=STRICT))
    assert START.judge([0.95]).action == "keep"
    assert strict.judge([0.95]).action != "keep"


def test_who_asks_for_certainty_asks_for_a_gain_that_matters() -> None:
    sharp = Noise(std=1e-6, dof=20)

    def kept(confidence: float, tokens: int = 0) -> bool:
        policy = JudgePolicy(confidence=confidence, code_size_price=1e-6)
        state = JudgeState.initial(policy, Estimate(1.0, 1e-6), sharp)
        return (
            state.judge([1.0 - 1e-4] * 4, code_size_change=tokens).action == "keep"
        )  # a hundred times the noise

    assert kept(0.4)
    assert not kept(STRICT)
    assert kept(STRICT, tokens=-1)  # of less code nothing more is asked
