"""Ending runs early whose printed loss is hopelessly high. Pure.

    i      tenth of the budget, 1 to 9
    l_i    loss of a run at tenth i; b_i: the incumbent's
    r_i    standard deviation of l_i over identical runs, n of them
    M_i    margin at tenth i: SAFETY · max(l_i - b_i) over good trials + t₀.₉₅(n-1) · r_i · √2

A run is ended at tenth i if l_i - b_i > M_i. A trial is good if it was kept, or if its score is within
``REACH`` standard deviations of the incumbent's.
"""

from __future__ import annotations

import dataclasses
import math
import re
import statistics
from collections.abc import Iterable, Sequence
from typing import Literal, Self, TypeAlias

from pytest_autoresearch.judging.noise import t_quantile
from pytest_autoresearch.records.measurement import format_score
from pytest_autoresearch.records.spec import Direction

Points: TypeAlias = Sequence[float | None]
"""The loss at each tenth of the budget, from 0.1 to 0.9; None where none was printed."""

TENTHS = 9
EARLIEST = 3  # the first tenth at which a run may end: warm-ups are over by then
EVIDENCE = 5  # good trials before the first run is ended; with one, twice as many keepers were lost
SAFETY = 2.0
REACH = 2

MAX_LINE = 2000  # characters of a line that are read
MAX_LOSS = 1e9

_SHARE = re.compile(r"(?<![\d.])(\d{1,3}(?:\.\d{0,9})?) {0,3}%")
_IN_BRACKETS = re.compile(r"\( {0,3}(\d{1,3}(?:\.\d{0,9})?) {0,3}%")
_LOSS = re.compile(
    r"(?<![\w.])loss {0,3}[:=] {0,3}([-+]?\d{1,20}(?:\.\d{0,20})?(?:[eE][-+]?\d{1,3})?)(?![\w.])"
)


class Curve:
    """The loss curve of a run, read from the lines that it prints.

    A line counts if it has a per cent, the used share of the budget (the first one in brackets, if there is
    one), and ``loss: NUMBER``: ``step 00010 (12.3%) | loss: 4.1234 | ...``. Their order and the rest of the
    line do not matter. No line raises an exception, and none takes long.
    """

    def __init__(self) -> None:
        self._points: list[float | None] = [None] * TENTHS
        self._furthest = 0.0

    @property
    def points(self) -> tuple[float | None, ...]:
        """The first loss printed within each tenth of the budget, from 0.1 to 0.9."""
        return tuple(self._points)

    def add(self, line: str) -> None:
        """Read another line. It is ignored if it has no loss, or goes back in time."""
        line = line[:MAX_LINE]
        share = _IN_BRACKETS.search(line) or _SHARE.search(line)
        printed = _LOSS.search(line)
        if share is None or printed is None:
            return
        percent, loss = float(share[1]), float(printed[1])
        if not self._furthest <= percent <= 100 or not abs(loss) <= MAX_LOSS:
            return
        self._furthest = percent
        tenth = int(percent // 10)
        if 1 <= tenth <= TENTHS and self._points[tenth - 1] is None:
            self._points[tenth - 1] = loss


@dataclasses.dataclass(frozen=True, slots=True)
class CurvePair:
    """A measured trial that ran to its end, and the incumbent that it was judged against."""

    points: Points
    score: float
    incumbent_points: Points
    incumbent_score: float
    kept: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Margins:
    """How far a loss may lie above the incumbent's, learned from trials that made up for it.

    A curve that is worse at first and better at last, as with a higher learning rate, widens the margin.
    There is no margin, and no run is ended, before :data:`EVIDENCE` good trials or with fewer than two
    repeats of one script. A trial that was ended early teaches nothing. The first trial that starts worse
    than every good one before it, and would still have won, is lost.
    """

    reach: float
    sign: Literal[1, -1]
    """-1 if a higher score is better; a lower loss always is."""
    noise: tuple[float | None, ...]
    """The noise term of each margin; None if unknown."""
    good: tuple[int, ...] = (0,) * TENTHS
    """Number of good trials with a loss at each tenth."""
    largest: tuple[float, ...] = (0.0,) * TENTHS
    """The largest excess of a good trial. It is never below 0: a trial that was always ahead says nothing
    about how far behind one may be."""

    @classmethod
    def learned(
        cls, trials: Iterable[CurvePair], repeats: Iterable[Points], std: float, direction: Direction
    ) -> Self:
        """Learn from every trial of a campaign, oldest first.

        Args:
            trials: those that ran to their end.
            repeats: loss curves of identical runs, the baseline's.
            std: the noise of the score.
            direction: of better scores.
        """
        noise = tuple(_noise(losses) for losses in zip(*map(_whole, repeats), strict=True))
        margins = cls(REACH * std, 1 if direction == "minimize" else -1, noise or (None,) * TENTHS)
        for trial in trials:
            margins = margins.after(trial)
        return margins

    def after(self, trial: CurvePair) -> Self:
        """Learn from one more trial."""
        if not trial.kept and self.sign * (trial.score - trial.incumbent_score) > self.reach:
            return self
        excesses = _excesses(trial.points, trial.incumbent_points)
        return dataclasses.replace(
            self,
            good=tuple(n + (x is not None) for n, x in zip(self.good, excesses, strict=True)),
            largest=tuple(max(m, x or 0.0) for m, x in zip(self.largest, excesses, strict=True)),
        )

    def at(self, tenth: int) -> float | None:
        """Return the margin at 1 to 9 tenths of the budget, in the unit of the loss, or None."""
        noise = self.noise[tenth - 1]
        if tenth < EARLIEST or noise is None or self.good[tenth - 1] < EVIDENCE:
            return None
        return SAFETY * self.largest[tenth - 1] + noise


@dataclasses.dataclass(frozen=True, slots=True)
class PruneRule:
    """End a run whose loss is too far above the incumbent's at the same share of the budget."""

    incumbent_curve: Points
    margins: Margins

    def __call__(self, points: Points) -> str | None:
        """Return in one line why a run whose curve ends with the last of *points* should end, or None."""
        tenth = max((i for i, point in enumerate(_whole(points), 1) if point is not None), default=0)
        excess, margin = _excesses(points, self.incumbent_curve)[tenth - 1], self.margins.at(tenth)
        if excess is None or margin is None or excess <= margin:
            return None
        at = f"at {10 * tenth} % its loss is {format_score(excess)} above the incumbent's"
        return f"{at}, the margin is {format_score(margin)}"


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
        runs = f"{self.ended} of {self.trials} runs"
        return f"pruning would have ended {runs} and {self.killed or 'none'} of {self.kept} kept ones"


def backtest(
    trials: Iterable[CurvePair], repeats: Iterable[Points], std: float, direction: Direction
) -> PruningBacktest:
    """Prune the trials of a campaign afterwards, each with margins from those before it.

    The arguments are those of :meth:`Margins.learned`. A trial that would have been ended teaches nothing.
    Each is compared with its actual incumbent, even if pruning would have ended that one.
    """
    margins = Margins.learned((), repeats, std, direction)
    count = ended = kept = killed = 0
    saved = 0.0
    for trial in trials:
        count += 1
        kept += trial.kept
        rule = PruneRule(trial.incumbent_points, margins)
        tenth = next((tenth for tenth in range(1, TENTHS + 1) if rule(trial.points[:tenth])), None)
        if tenth is None:
            margins = margins.after(trial)
        else:
            ended += 1
            killed += trial.kept
            saved += 1 - tenth / 10
    return PruningBacktest(count, ended, saved / max(count, 1), kept, killed)


def _whole(points: Points) -> list[float | None]:
    """Return nine points, each of them a finite number or None."""
    known = [point if point is not None and math.isfinite(point) else None for point in points[:TENTHS]]
    return known + [None] * (TENTHS - len(known))


def _excesses(points: Points, incumbent: Points) -> list[float | None]:
    pairs = zip(_whole(points), _whole(incumbent), strict=True)
    return [None if own is None or other is None else own - other for own, other in pairs]


def _noise(losses: Iterable[float | None]) -> float | None:
    """Return how far two identical runs may lie apart by chance, one-sided 95 %; None with fewer than two."""
    known = [loss for loss in losses if loss is not None]
    if len(known) < 2:
        return None
    return t_quantile(0.9, len(known) - 1) * statistics.stdev(known) * math.sqrt(2)
