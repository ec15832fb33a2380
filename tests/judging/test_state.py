"""What a campaign knows follows from its trials alone, each giving the next one's standing."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_autoresearch.judging.judge import STRICT, Estimate, Noise
from pytest_autoresearch.judging.state import JudgePolicy, JudgeState

OPENING = Noise(spread=0.01, freedom=2)
START = JudgeState.opening(JudgePolicy(), Estimate(1.0, 0.006), OPENING)

scores = st.lists(st.floats(0.9, 1.1), max_size=4).map(tuple)
trials = st.lists(st.tuples(scores, scores, st.booleans()), max_size=6)


def after(standing: JudgeState, *steps: tuple[tuple[float, ...], tuple[float, ...], bool]) -> JudgeState:
    """The standing after trials: scores of the proposal, of the incumbent meanwhile, and the verdict."""
    for own, again, kept in steps:
        standing = standing.after(own, again, kept=kept and bool(own))
    return standing


@given(trials, trials)
def test_the_same_trials_give_the_same_standing(
    before: list[tuple[tuple[float, ...], tuple[float, ...], bool]],
    behind: list[tuple[tuple[float, ...], tuple[float, ...], bool]],
) -> None:
    whole = after(START, *before, *behind)
    assert after(after(START, *before), *behind) == whole
    counted = sum(map(sum, whole.effects.counts))
    assert counted == pytest.approx(sum(bool(own) for own, _, _ in before + behind))
    assert 0 < whole.belief.error < math.inf
    assert whole.noise.spread > 0


@given(scores, scores)
def test_judging_changes_nothing(own: tuple[float, ...], again: tuple[float, ...]) -> None:
    standing = after(START, ((1.02,), (), False))
    copy = dataclasses.replace(standing)
    assert standing.judge(own, again) == standing.judge(own, again)
    assert standing == copy


def test_another_run_of_the_incumbent_is_taken_in() -> None:
    known = START.measured([0.98])
    assert 0.98 < known.mean < 1.0
    assert known.error < START.belief.error
    assert START.measured([]) == START.belief
    without_a_score = START.after((), [0.98], kept=False)
    assert without_a_score == dataclasses.replace(START, belief=known)


def test_the_noise_is_that_of_every_version_that_was_run_again() -> None:
    discarded = after(START, ((1.05, 1.05, 1.05), (), False))
    assert discarded.noise.freedom == 4
    assert discarded.noise.spread == pytest.approx(0.01 * math.sqrt(2 / 4))
    assert after(discarded, ((1.2,), (1.0,), False)).noise == discarded.noise  # single runs say nothing of it
    both = after(START, ((0.9, 0.9), (1.0, 1.0), True))  # of two versions
    assert both.noise.freedom == 4


def test_what_is_kept_is_believed_in_less_than_it_scored() -> None:
    kept = after(START, ((0.95,), (), True))
    assert 0.95 < kept.belief.mean < 1.0
    assert kept.belief == START.judge([0.95]).belief


def test_what_is_discarded_says_something_of_the_incumbent() -> None:
    discarded = after(START, ((1.03,), (), False))
    assert discarded.belief == START.judge([1.03]).incumbent
    assert discarded.belief.mean != START.belief.mean
    assert abs(discarded.belief.mean - START.belief.mean) < 0.01


def test_a_trial_is_compared_with_what_is_known_by_then() -> None:
    late = after(START, ((0.97,), (0.97, 0.97, 0.97), False))
    early = after(START, ((0.97,), (), False))
    better = [sum(better for _, better, _ in standing.effects.counts) for standing in (late, early)]
    assert better[0] < better[1]


def test_many_failures_ask_for_more_evidence() -> None:
    hopeful = START.judge([0.98])
    effects = after(START, *[((1.02,), (), False)] * 30).effects
    doubtful = dataclasses.replace(START, effects=effects).judge([0.98])
    assert doubtful.difference > hopeful.difference


def test_a_higher_score_may_be_the_better_one() -> None:
    higher = JudgeState.opening(JudgePolicy(direction="maximize"), START.belief, OPENING)
    assert higher.judge([1.1]).action == "keep"
    assert higher.judge([0.9]).action == "discard"
    assert after(higher, ((1.1,), (), True)).belief.mean == pytest.approx(
        2 - after(START, ((0.9,), (), True)).belief.mean
    )


def test_a_token_costs_a_share_of_the_score() -> None:
    exact = JudgeState.opening(JudgePolicy(price=1e-3), Estimate(200.0, 0.0), Noise(0.0, 2))
    assert exact.judge([199.0], code_size_change=4).action == "keep"  # 0.8 of 1
    assert exact.judge([199.0], code_size_change=6).action == "discard"  # 1.2 of 1
    free = dataclasses.replace(exact, terms=JudgePolicy())
    assert free.judge([199.0], code_size_change=6).action == "keep"


def test_the_confidence_is_that_of_the_terms() -> None:
    strict = dataclasses.replace(START, terms=JudgePolicy(confidence=STRICT))
    assert START.judge([0.95]).action == "keep"
    assert strict.judge([0.95]).action != "keep"


def test_who_asks_for_certainty_asks_for_a_gain_that_matters() -> None:
    sharp = Noise(spread=1e-6, freedom=20)

    def kept(confidence: float, tokens: int = 0) -> bool:
        terms = JudgePolicy(confidence=confidence, price=1e-6)
        standing = JudgeState.opening(terms, Estimate(1.0, 1e-6), sharp)
        return (
            standing.judge([1.0 - 1e-4] * 4, code_size_change=tokens).action == "keep"
        )  # a hundred times the noise

    assert kept(0.4)
    assert not kept(STRICT)
    assert kept(STRICT, tokens=-1)  # of less code nothing more is asked
