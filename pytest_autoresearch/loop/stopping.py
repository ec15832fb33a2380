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
        """Start the clock.

        Args:
            trials: that may be started; None is no limit.
            hours: during which trials are started; None is no limit.
            give_up_after: trials in a row without a score, after which the loop ends; None is never.
        """
        self._trials = math.inf if trials is None else trials
        self._deadline = math.inf if hours is None else time.monotonic() + 3600 * hours
        self._give_up_after = give_up_after
        self._unanswered = 0  # trials in a row

    @property
    def trials_left(self) -> int | None:
        """How many trials may still be started; None is no limit."""
        return None if self._trials == math.inf else int(self._trials)

    @property
    def seconds_left(self) -> float | None:
        """For how long trials are started; None is no limit."""
        return None if self._deadline == math.inf else self._deadline - time.monotonic()

    def may_start(self) -> bool:
        """Tell whether another trial may be started."""
        return self._trials > 0 and time.monotonic() < self._deadline

    def count(self) -> None:
        """Count a trial that is started."""
        self._trials -= 1

    def may_follow(self, trials: Sequence[Trial]) -> bool:
        """Tell whether another trial will start if the present one takes as long as the last *trials*."""
        seconds = [run.wall_seconds for trial in trials for run in trial.measurements]
        longest = max(seconds[-RECENT:], default=0.0)
        return self._trials > 0 and time.monotonic() + longest < self._deadline

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
        self._unanswered = self._unanswered + 1 if trial.unanswered else 0
        if not self._unanswered or not self._trials:
            return 0.0
        wait = min(
            FIRST_WAIT * 2.0 ** (self._unanswered - 1), LONGEST_WAIT, self._deadline - time.monotonic()
        )
        return max(wait, 0.0)
