"""A run ends early only where its loss lies further above the incumbent's than any good trial's did."""

from __future__ import annotations

import dataclasses
import math
import pickle
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_autoresearch.judging.pruning import (
    EARLIEST,
    EVIDENCE,
    MAX_LINE,
    Curve,
    CurvePair,
    Margins,
    Points,
    PruneRule,
    PruningBacktest,
    backtest,
)

TENTHS = tuple(i / 10 for i in range(1, 10))
STD = 0.005  # of a final loss, from run to run
INCUMBENT = tuple(3 + 2 * (1 - share) ** 2 for share in TENTHS)
REPEATS = [tuple(loss + shift for loss in INCUMBENT) for shift in (-0.01, 0.0, 0.01)]
NOISE = 2.91998558 * 0.01 * math.sqrt(2)  # of one run against another, from the three


def curve(*lines: str) -> tuple[float | None, ...]:
    read = Curve()
    for line in lines:
        read.add(line)
    return read.points


def above(excess: float, upto: int = 9) -> list[float | None]:
    return [loss + excess if i < upto else None for i, loss in enumerate(INCUMBENT)]


def past(excess: float, behind: float, *, kept: bool = False) -> CurvePair:
    return CurvePair(above(excess), 3 + behind, INCUMBENT, 3.0, kept)


def learned(*trials: CurvePair, repeats: list[Points] | None = None) -> Margins:
    return Margins.learned(trials, REPEATS if repeats is None else repeats, STD, "minimize")


BAD = past(0.5, 0.4)
GOOD = [past(0.0, 0.0)] * (EVIDENCE - 1)


# -- the curve ------------------------------------------------------------------------------------


def test_a_curve_holds_the_first_loss_of_each_tenth() -> None:
    lines = [
        f"step {i:05d} ({i / 2:.1f}%) | loss: {10 - i / 100:.6f} | lrm: 1.00 | dt: 9ms | epoch: 0"
        for i in range(201)
    ]
    assert curve(*lines) == tuple(10 - tenth * 20 / 100 for tenth in range(1, 10))


def test_a_tenth_without_a_line_has_no_loss() -> None:
    assert curve("(12%) loss: 5", "(35%) loss: 4", "(100%) loss: 3") == (5, None, 4, *[None] * 6)


@pytest.mark.parametrize(
    "line",
    [
        "step 00010 (50.0%) | loss: 2.5 | remaining: 3s",
        "loss: 2.5 after 50 % of the time",
        "[50%] lr 0.1, loss=2.5",
        "mfu: 31.2% | loss: 2.5 | step 7 (50.0%)",
        "50%|#####     | loss: 2.5e0",
        "train_loss: 9 (50%) loss: +2.5",
    ],
)
def test_a_line_may_be_written_in_many_ways(line: str) -> None:
    assert curve(line)[4] == 2.5


@pytest.mark.parametrize(
    "line",
    [
        "(50%) loss: nan",
        "(50%) loss: inf",
        "(50%) loss: 1e400",
        "(50%) loss: 1e300",
        "(50%) loss: 2.5.1",
        "(50%) loss: 2.5x",
        "(50%) loss:",
        "(50%) my_loss: 2.5",
        "(150%) loss: 2.5",
        "(5000%) loss: 2.5",
        "(-%) loss: 2.5",
        "loss: 2.5",
        "50%",
        "",
        "\0\x1b[2J",
        " " * MAX_LINE + "(50%) loss: 2.5",
    ],
)
def test_a_line_that_tells_nothing_is_passed_over(line: str) -> None:
    assert curve(line) == (None,) * 9
    assert curve(line, "(50%) loss: 2.5")[4] == 2.5


def test_what_was_printed_stays_whatever_comes_later() -> None:
    assert curve("(50%) loss: 3", "(51%) loss: 1", "(30%) loss: 0.1")[2:5] == (None, None, 3)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.text() | st.from_regex(r"\(-?[0-9.e]{1,9}%\) loss[:=] ?[-+0-9.einfa]{1,9}")))
def test_no_line_is_refused(lines: list[str]) -> None:
    assert all(point is None or math.isfinite(point) for point in curve(*lines))


@pytest.mark.parametrize("text", ["(1", "(1.", "loss: ", "1" * 9, " ", "%", "loss", "(50% ", "loss: 1e"])
def test_a_hostile_line_takes_no_time(text: str) -> None:
    read, line = Curve(), text * 20_000
    start = time.process_time()
    for _ in range(200):
        read.add(line)
    assert time.process_time() - start < 1


# -- the margins ----------------------------------------------------------------------------------


def test_the_margin_is_what_good_trials_made_up_for_and_the_noise() -> None:
    margins = learned(*GOOD, past(0.1, 0.008), past(0.2, -0.1, kept=True), past(-0.3, 0.0))
    assert margins.at(5) == pytest.approx(2 * 0.2 + NOISE)


def test_trials_out_of_reach_do_not_widen_the_margin() -> None:
    margins = learned(*GOOD, past(0.1, 0.0099), past(0.3, 0.0101), BAD)
    assert margins.at(5) == pytest.approx(2 * 0.1 + NOISE)


def test_a_kept_trial_widens_it_whatever_its_score() -> None:
    assert learned(*GOOD, past(0.2, 0.1, kept=True)).at(5) == pytest.approx(2 * 0.2 + NOISE)


def test_a_trial_that_was_ahead_all_the_way_does_not_narrow_it() -> None:
    assert learned(*GOOD, past(-0.3, -0.1)).at(5) == pytest.approx(NOISE)


def test_a_score_may_be_better_the_higher_it_is() -> None:
    margins = Margins.learned([past(0.5, -0.4), *GOOD, past(0.2, 0.1)], REPEATS, STD, "maximize")
    assert margins.at(5) == pytest.approx(2 * 0.2 + NOISE)


def test_a_margin_is_cheap_to_send_however_many_trials_taught_it() -> None:
    margins = learned(*GOOD * 100, past(0.1, 0.0))
    packed = pickle.dumps(margins)
    assert pickle.loads(packed) == margins  # noqa: S301 - our own
    assert len(packed) < 1000


def test_learning_leaves_the_margins_before_as_they_were() -> None:
    margins = learned(*GOOD)
    assert margins.after(past(0.1, 0.0)) != margins
    assert margins == learned(*GOOD)


@pytest.mark.parametrize(
    "margins",
    [
        learned(*GOOD),
        learned(*GOOD, BAD),
        learned(*GOOD, past(0.1, 0.0), repeats=[]),
        learned(*GOOD, past(0.1, 0.0), repeats=[INCUMBENT]),
        learned(*GOOD, past(0.1, 0.0), repeats=[(), ()]),
        learned(*GOOD, CurvePair((), 3.0, INCUMBENT, 3.0, kept=True)),
        learned(*GOOD, CurvePair(above(0.1), 3.0, (), 3.0, kept=True)),
        learned(*GOOD, CurvePair([math.nan] * 9, 3.0, INCUMBENT, 3.0, kept=True)),
    ],
    ids=["few", "few good", "no repeat", "one repeat", "empty", "no curve", "no other curve", "nan"],
)
def test_without_evidence_no_run_is_ended(margins: Margins) -> None:
    assert [margins.at(tenth) for tenth in range(1, 10)] == [None] * 9
    assert PruneRule(INCUMBENT, margins)(above(50)) is None


def test_no_run_is_ended_before_its_time() -> None:
    margins = learned(*GOOD, past(0.1, 0.0))
    ends = [PruneRule(INCUMBENT, margins)(above(50, upto)) is not None for upto in range(10)]
    assert ends == [upto >= EARLIEST for upto in range(10)]


def test_the_reason_says_when_and_by_how_much() -> None:
    margins = learned(*GOOD, past(0.1, 0.0))
    reason = "at 40 % its loss is 0.3000 above the incumbent's, the margin is 0.2413"
    assert PruneRule(INCUMBENT, margins)(above(0.3, 4)) == reason
    assert PruneRule(INCUMBENT, margins)(above(0.24, 4)) is None


def test_only_the_last_point_counts() -> None:
    points = [*above(50, 4)[:4], INCUMBENT[4]]
    assert PruneRule(INCUMBENT, learned(*GOOD, past(0.1, 0.0)))(points) is None
    assert PruneRule(INCUMBENT, learned(*GOOD, past(0.1, 0.0)))([*points[:4], None]) is not None


# -- the replay -----------------------------------------------------------------------------------


def test_a_replay_learns_from_earlier_trials_only() -> None:
    history = [BAD, *GOOD, past(0.1, 0.0), BAD, past(0.5, -0.1, kept=True)]
    told = backtest(history, REPEATS, STD, "minimize")
    assert told == PruningBacktest(trials=8, ended=2, saved=pytest.approx(2 * 0.7 / 8), kept=1, killed=1)
    assert str(told) == "pruning would have ended 2 of 8 runs and 1 of 1 kept ones"
    assert backtest(reversed(history), REPEATS, STD, "minimize").killed == 0


def test_an_ended_trial_teaches_nothing() -> None:
    history = [*GOOD, past(0.1, 0.0), past(0.5, -0.1, kept=True), past(0.5, -0.1, kept=True)]
    assert backtest(history, REPEATS, STD, "minimize").killed == 2


def test_a_replay_of_nothing() -> None:
    told = backtest([], REPEATS, STD, "minimize")
    assert told == PruningBacktest(0, 0, 0.0, 0, 0)
    assert str(told) == "pruning would have ended 0 of 0 runs and none of 0 kept ones"


@dataclasses.dataclass
class Simulated:
    """A campaign whose curves may cross: a trial's loss lags behind by *lag* that is gone at the end."""

    random: random.Random
    lag: float
    incumbent: float = 3.0

    def curve(self, final: float, lag: float = 0.0) -> list[float | None]:
        shift = self.random.gauss(0, STD)
        return [
            final + 2 * (1 - share) ** 2 + lag * (1 - share) + shift + self.random.gauss(0, STD)
            for share in TENTHS
        ]

    def trials(self, count: int) -> list[CurvePair]:
        points, history = self.curve(self.incumbent), []
        for _ in range(count):
            effect = self.random.choice([-0.02, 0.0, 0.0, 0.05, 0.2, 0.5]) * self.random.random()
            own = self.curve(self.incumbent + effect, self.random.uniform(-self.lag, self.lag))
            score = self.incumbent + effect + self.random.gauss(0, STD)
            kept = score < self.incumbent - 2 * STD
            history.append(CurvePair(own, score, points, self.incumbent, kept))
            if kept:
                points, self.incumbent = own, score
        return history


@pytest.mark.parametrize(("lag", "least", "most"), [(0.0, 0.15, 0.25), (0.1, 0.1, 0.2), (1.0, 0.01, 0.1)])
def test_where_curves_cross_fewer_runs_are_ended_and_few_keepers(
    lag: float, least: float, most: float
) -> None:
    told = []
    for seed in range(40):
        campaign = Simulated(random.Random(seed), lag)
        repeats = [campaign.curve(3.0) for _ in range(3)]
        told.append(backtest(campaign.trials(60), repeats, STD, "minimize"))
    assert least < sum(one.saved for one in told) / len(told) < most
    assert sum(one.killed for one in told) <= 0.03 * sum(one.kept for one in told)
