"""Waiting for runs, on the main thread."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait

from pytest_autoresearch.executors.base import Executor, RunOutcome, RunRequest

TICK = 0.1  # seconds between looks at what the runs have printed


class Watch:
    """Submits runs and waits for them; the last line that they printed is shown meanwhile.

    Runs print in other threads. All that is shown is shown by the thread that waits.
    """

    def __init__(
        self, executor: Executor, show: Callable[[str, str], None], idle: Callable[[], None] = lambda: None
    ) -> None:
        """Call *show* with the name of a run and its last line, and *idle* several times a second."""
        self._executor = executor
        self._show = show
        self._idle = idle
        self._names: dict[Future[RunOutcome], str] = {}
        self._last: tuple[str, str] | None = None

    def submit(self, name: str, request: RunRequest) -> Future[RunOutcome]:
        """Start a run."""

        def note(line: str) -> None:
            if line.strip():
                self._last = name, line

        future = self._executor.submit(request, note)
        self._names[future] = name
        return future

    def wait(self) -> set[Future[RunOutcome]]:
        """Return the runs that have ended since, at least one. An interruption ends them all."""
        done: set[Future[RunOutcome]] = set()
        try:
            while not done:
                done, _ = wait(self._names, TICK, FIRST_COMPLETED)
                self._idle()
                if self._last is not None:
                    self._show(*self._last)
                    self._last = None
        except BaseException:
            self._executor.cancel()
            raise
        for future in done:
            del self._names[future]
        return done

    def measure(self, name: str, request: RunRequest) -> RunOutcome:
        """Make one run and wait for it.

        Raises:
            ScorerUnavailable: there is no scorer.
            StorageError: the harness cannot write.
        """
        future = self.submit(name, request)
        while future not in self.wait():
            pass
        return future.result()
