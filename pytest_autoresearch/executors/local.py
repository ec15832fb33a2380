"""Runs on this machine, in threads of this process."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

from pytest_autoresearch.executors.base import RunOutcome, RunRequest
from pytest_autoresearch.executors.slot import Cancellation, Resources, Slot
from pytest_autoresearch.runs.compiler_cache import CompilerCache
from pytest_autoresearch.runs.config import RunConfig


class LocalExecutor:
    """An :class:`~pytest_autoresearch.executors.base.Executor`: one thread for each slot.

    The calling thread waits for futures only, so Ctrl-C and SIGTERM interrupt it at once, and it can
    :meth:`cancel` the runs. If the whole process is killed, the runs' supervisors end them.
    """

    def __init__(self, config: RunConfig, resources: Sequence[Resources] = (Resources(),)) -> None:
        """Get ready; nothing is started before the first run.

        Args:
            config: what all runs have in common.
            resources: of each slot; by default one slot has the whole machine.
        """
        self._caches = CompilerCache()
        self._slots = [Slot(config, part, self._caches) for part in resources]
        self._unclaimed: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        for slot in self._slots:
            self._unclaimed.put(slot)
        self._thread = threading.local()
        self._pool = ThreadPoolExecutor(len(self._slots), "autoresearch-slot", self._claim_slot)
        self._running: dict[Future[RunOutcome], Cancellation] = {}

    @property
    def capacity(self) -> int:
        """How many runs are made at a time."""
        return len(self._slots)

    def submit(self, request: RunRequest, on_line: Callable[[str], object]) -> Future[RunOutcome]:
        """Start a run, or queue it until a slot is free; see :meth:`Executor.submit`."""
        cancellation = Cancellation()
        future = self._pool.submit(self._run, request, on_line, cancellation)
        self._running[future] = cancellation
        future.add_done_callback(self._forget)
        return future

    def cancel(self) -> None:
        """End every run, queued ones too, and wait until no process of them is left.

        Their futures raise :class:`~concurrent.futures.CancelledError`. The executor can be used again.
        """
        running = dict(self._running)
        for future, cancellation in running.items():
            if not future.cancel():
                cancellation.request()
        wait(running)

    def close(self) -> None:
        """End every run and scorer, and remove what compilers have kept."""
        self.cancel()
        self._pool.shutdown()
        for slot in self._slots:
            slot.close()
        self._caches.close()

    def _claim_slot(self) -> None:
        """Give the calling thread of the pool a slot of its own."""
        self._thread.slot = self._unclaimed.get()
        self._thread.slot.bind()

    def _run(
        self, request: RunRequest, on_line: Callable[[str], object], cancellation: Cancellation
    ) -> RunOutcome:
        slot: Slot = self._thread.slot
        return slot.run(request, on_line, cancellation)

    def _forget(self, future: Future[RunOutcome]) -> None:
        del self._running[future]
