"""Whether a run is hopeless, from the losses that it prints. Pure."""

from __future__ import annotations

import dataclasses
import math
import re
import statistics
from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

from pytest_autoresearch.judging.judge import t_quantile
from pytest_autoresearch.records.measurement import format_score

Points: TypeAlias = Sequence[float | None]
"""The loss at each tenth of the budget, from 0.1 to 0.9; None where none was printed."""

TENTHS = 9
EARLIEST = 3  # tenths of the budget before which no run is ended: warm-ups and crossings are over by then
EVIDENCE = 5  # good trials before the first run is ended; with one, twice as many keepers were lost
SAFETY = 2.0  # times the largest excess that was ever made up for
REACH = 2  # spreads of the noise within which a score counts as good as the incumbent's

LONGEST = 2000  # characters of a line that are looked at
HIGHEST = 1e9  # a loss beyond it is no loss

_SHARE = re.compile(r"(?<![\d.])(\d{1,3}(?:\.\d{0,9})?) {0,3}%")
_IN_BRACKETS = re.compile(r"\( {0,3}(\d{1,3}(?:\.\d{0,9})?) {0,3}%")
_LOSS = re.compile(
    r"(?<![\w.])loss {0,3}[:=] {0,3}([-+]?\d{1,20}(?:\.\d{0,20})?(?:[eE][-+]?\d{1,3})?)(?![\w.])"
)


class Curve:
    """The loss curve of a run, read from the lines that it prints.

    A line counts that has a per cent, the share of the budget that is used (the first in brackets if
    there is one), and ``loss: NUMBER``: ``step 00010 (12.3%) | loss: 4.1234 | ...``. What else is on it,
    and in which order, does not matter. No line is refused, and none takes long.
    """

    def __init__(self) -> None:
        self._points: list[float | None] = [None] * TENTHS
        self._furthest = 0.0

    @property
    def points(self) -> tuple[float | None, ...]:
        """The first loss printed within each tenth of the budget, from 0.1 to 0.9."""
        return tuple(self._points)

    def add(self, line: str) -> None:
        """Take another line in; it is passed over if it tells no loss, or goes back in time."""
        line = line[:LONGEST]
        share = _IN_BRACKETS.search(line) or _SHARE.search(line)
        told = _LOSS.search(line)
        if share is None or told is None:
            return
        percent, loss = float(share[1]), float(told[1])
        if not self._furthest <= percent <= 100 or not abs(loss) <= HIGHEST:
            return
        self._furthest = percent
        tenth = int(percent // 10)
        if 1 <= tenth <= TENTHS and self._points[tenth - 1] is None:
            self._points[tenth - 1] = loss


@dataclasses.dataclass(frozen=True, slots=True)
class CurvePair:
    """A trial that ran to its end and was measured, beside the incumbent that it was judged against."""

    points: Points
    score: float
    incumbent_points: Points
    incumbent_score: float
    kept: bool


class Margins:
    """How far a loss may lie above the incumbent's, learned from the trials that made up for it.

    At each tenth of the budget it is :data:`SAFETY` times the largest excess of any trial that ended
    kept or within :data:`REACH` spreads of the incumbent's score, and in addition what identical runs
    differ by: the one-sided 95 % limit (Student's t) from *repeats*, the curves of runs of one script.
    A curve that is worse at first and better at last, as with a higher learning rate, widens it.

    There is none before :data:`EVIDENCE` such trials were measured, or with fewer than two repeats: then
    no run is ended. What it cannot know is a trial that starts worse than every good one before it and
    would still have won: the first of its kind is lost. A trial that was ended teaches nothing.

    Args:
        repeats: of one script, the baseline's.
        spread: the standard deviation of the final score of identical runs.
        direction: of the final score; a lower loss is always better.
    """

    def __init__(
        self, repeats: Iterable[Points], spread: float, direction: Literal["minimize", "maximize"]
    ) -> None:
        self._reach = REACH * spread
        self._sign = 1 if direction == "minimize" else -1
        self._noise = [_noise(losses) for losses in zip(*map(_whole, repeats), strict=True)] or [
            None
        ] * TENTHS
        self._blind = all(noise is None for noise in self._noise)
        self._good = [0] * TENTHS
        # A trial that was ahead all the way does not say how far behind one may be: never below 0.
        self._largest = [0.0] * TENTHS

    def learn(self, trial: CurvePair) -> None:
        """Take in a trial that was measured."""
        if self._blind:
            return
        behind = self._sign * (trial.score - trial.incumbent_score)
        if not trial.kept and behind > self._reach:
            return
        for i, excess in enumerate(_excesses(trial.points, trial.incumbent_points)):
            if excess is not None:
                self._good[i] += 1
                self._largest[i] = max(self._largest[i], excess)

    def at(self, tenth: int) -> float | None:
        """Return the margin at 1 to 9 tenths of the budget, in the unit of the loss; None for no end."""
        noise = self._noise[tenth - 1]
        if tenth < EARLIEST or noise is None or self._good[tenth - 1] < EVIDENCE:
            return None
        return SAFETY * self._largest[tenth - 1] + noise

    def ended_at(self, points: Points, incumbent: Points) -> int | None:
        """Return at how many tenths of the budget a run of this whole curve would have been ended."""
        if self._blind:
            return None
        shown: list[float | None] = []
        for point in _whole(points):
            shown.append(point)
            if point is not None and prune_reason(shown, incumbent, self) is not None:
                return len(shown)
        return None


@dataclasses.dataclass(frozen=True, slots=True)
class PruningBacktest:
    """What pruning would have done to trials that all ran to their end."""

    trials: int
    ended: int
    saved: float
    """The share of the time of all runs, from 0 to 1, if each takes the whole budget."""
    kept: int
    killed: int
    """Kept trials that would have been ended."""

    def __str__(self) -> str:
        """Say it in a clause: ``pruning would have ended 9 of 24 runs and none of 3 kept ones``."""
        runs, kept = (
            f"{self.ended} of {self.trials} runs",
            f"{self.killed or 'none'} of {self.kept} kept ones",
        )
        return f"pruning would have ended {runs} and {kept}"


def prune_reason(points: Points, incumbent: Points, margins: Margins) -> str | None:
    """Return in one line why a run with this curve so far should end, None if it should go on.

    Only the last of its points counts. No margin, or no loss of the incumbent's there, and it goes on.
    """
    excesses = _excesses(points, incumbent)
    tenth = max((i for i, point in enumerate(_whole(points), 1) if point is not None), default=0)
    if tenth == 0 or (excess := excesses[tenth - 1]) is None or (margin := margins.at(tenth)) is None:
        return None
    if not excess > margin:
        return None
    at = f"at {10 * tenth} % its loss is {format_score(excess)} above the incumbent's"
    return f"{at}, the margin is {format_score(margin)}"


def backtest(
    history: Iterable[CurvePair],
    repeats: Iterable[Points],
    spread: float,
    direction: Literal["minimize", "maximize"],
) -> PruningBacktest:
    """Go through the measured trials of a campaign, each with margins from those before it.

    *repeats*, *spread* and *direction* are as for :class:`Margins`. A trial that would have been ended
    teaches nothing to those after it, as if it had been; but each is held against the incumbent that
    there was, also where pruning would have ended that one.
    """
    margins = Margins(repeats, spread, direction)
    trials = ended = kept = killed = 0
    saved = 0.0
    for trial in history:
        trials += 1
        kept += trial.kept
        tenth = margins.ended_at(trial.points, trial.incumbent_points)
        if tenth is None:
            margins.learn(trial)
        else:
            ended += 1
            killed += trial.kept
            saved += 1 - tenth / 10
    return PruningBacktest(trials, ended, saved / max(trials, 1), kept, killed)


def _whole(points: Points) -> list[float | None]:
    """Return exactly nine points, each of them a number or None."""
    known = [point if point is not None and math.isfinite(point) else None for point in points[:TENTHS]]
    return known + [None] * (TENTHS - len(known))


def _excesses(points: Points, incumbent: Points) -> list[float | None]:
    pairs = zip(_whole(points), _whole(incumbent), strict=True)
    return [None if own is None or other is None else own - other for own, other in pairs]


def _noise(losses: Iterable[float | None]) -> float | None:
    """Return how far two runs of one script may lie apart by chance; None with fewer than two."""
    known = [loss for loss in losses if loss is not None]
    if len(known) < 2:
        return None
    return t_quantile(0.9, len(known) - 1) * statistics.stdev(known) * math.sqrt(2)
