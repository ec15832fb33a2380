"""When a campaign's loop ends, and how long it waits for agents that have no answer."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence

from pytest_autoresearch.records.trial import Trial

FIRST_WAIT, LONGEST_WAIT = 2.0, 600.0  # seconds until agents without an answer are asked again; doubled
RECENT = 10  # trials that tell how long the next one may take


class Stopping:
    """What is left of the trials and the time that a session was given."""

    def __init__(self, trials: int | None, hours: float | None, give_up_after: int | None) -> None:
        """Start the clock; the arguments are those of :class:`~pytest_autoresearch.settings.Settings`."""
        self.trials_left = trials
        """How many trials may still be started; None is no limit."""
        self._deadline = math.inf if hours is None else time.monotonic() + 3600 * hours
        self._give_up_after = give_up_after
        self._wait = 0.0

    @property
    def seconds_left(self) -> float | None:
        """For how long trials are started; None is no limit."""
        return None if self._deadline == math.inf else self._deadline - time.monotonic()

    def may_start(self, seconds: float = 0.0) -> bool:
        """Tell whether another trial may be started, so many *seconds* from now."""
        return self.trials_left != 0 and time.monotonic() + seconds < self._deadline

    def count(self) -> None:
        """Count a trial that is started."""
        if self.trials_left is not None:
            self.trials_left -= 1

    def may_follow(self, trials: Sequence[Trial]) -> bool:
        """Tell whether another trial will start if the present one takes as long as the last *trials*."""
        seconds = [run.wall_seconds for trial in trials for run in trial.measurements]
        return self.may_start(max(seconds[-RECENT:], default=0.0))

    def reason_to_give_up(self, trials: Sequence[Trial]) -> str | None:
        """Return why the loop should end after these *trials*; None if it should go on."""
        most = self._give_up_after
        if most is None or not trials or trials[-1].unanswered:
            return None
        answered = (trial for trial in reversed(trials) if not trial.unanswered)
        last = list(itertools.islice(answered, most))
        if len(last) < most or any(trial.verdict in ("kept", "discarded") for trial in last):
            return None
        return f"{most} trials in a row gave no score, the last one: {last[0].reason}"

    def wait_after(self, trial: Trial) -> float:
        """Return the seconds to wait before agents are asked again: longer and longer during an outage."""
        self._wait = min(2 * self._wait or FIRST_WAIT, LONGEST_WAIT) if trial.unanswered else 0.0
        left = 0.0 if self.trials_left == 0 else self._deadline - time.monotonic()
        return max(min(self._wait, left), 0.0)
