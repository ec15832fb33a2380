"""A running sandboxed process with all its descendants: its output, its use of resources, its end."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Self

from pytest_autoresearch.system import processes

if TYPE_CHECKING:
    import psutil

STOP_TIMEOUT = 0.2  # seconds to stop all processes of a run, which may keep forking
STOP_INTERVAL = 0.001  # seconds between two looks at them
SIGNAL_CODES = range(129, 193)  # the supervisor's exit codes for a death by signal: 128 + its number


class SandboxedProcess:
    """A process that its supervisor started, with its descendants. A context manager ends all of them."""

    supervisor: subprocess.Popen[bytes]
    output: IO[bytes]
    """Standard output and standard error of the process, unbuffered."""

    def __init__(self, supervisor: subprocess.Popen[bytes], control: IO[bytes]) -> None:
        """Take over a *supervisor*, which ends everything when *control* is closed."""
        assert supervisor.stdout is not None
        self.supervisor, self.output = supervisor, supervisor.stdout
        self._control = control
        self._own_seconds: dict[psutil.Process, float] = {}
        self._cpu_seconds = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def exit_code(self) -> int | None:
        """Return the exit code, negative for a signal; None while any process of it is alive."""
        code = self.supervisor.poll()
        return None if code is None else _with_signals(code)

    def wait(self, timeout: float) -> int:
        """Wait at most *timeout* seconds and return the exit code, negative for a signal.

        Raises:
            subprocess.TimeoutExpired: it is still running.
        """
        return _with_signals(self.supervisor.wait(timeout))

    def cpu_seconds(self) -> float:
        """Return the processor seconds that it and all its descendants have used; it never decreases.

        A process adds what its children used when it waits for them, but not if it ignores SIGCHLD. The sum
        of what each process was last seen to have used covers that case, so the larger of both counts.
        """
        import psutil

        alive = 0.0
        if self.supervisor.poll() is None:
            # Parents come first, so a process that ends meanwhile is missed once and never counted twice.
            for process in self._family():
                with contextlib.suppress(psutil.NoSuchProcess):
                    times, own = process.cpu_times(), processes.own_seconds(process)
                    alive += times.children_user + times.children_system
                    if process.pid != self.supervisor.pid:
                        alive += own
                        self._own_seconds[process] = max(own, self._own_seconds.get(process, 0.0))
        self._cpu_seconds = max(self._cpu_seconds, alive, sum(self._own_seconds.values()))
        return self._cpu_seconds

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop it and all its descendants inside the block, as far as possible.

        It can fork faster than it is followed and, without a seccomp filter, wake itself by a timer that
        sends SIGCONT; :meth:`cpu_seconds` shows what it uses then. Processes that it had stopped itself stay
        stopped.
        """
        import psutil

        stopped: set[psutil.Process] = set()
        try:
            deadline = time.monotonic() + STOP_TIMEOUT
            # A process that was just born may wake the others: done only when one look finds all stopped.
            while time.monotonic() < deadline and (
                moving := [process for process in self._family()[1:] if processes.is_moving(process)]
            ):
                for process in moving:
                    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                        process.suspend()
                        stopped.add(process)
                time.sleep(STOP_INTERVAL)
            yield
        finally:
            for process in stopped:
                with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                    process.resume()

    def memory(self) -> float:
        """Return the MiB that all its processes hold; memory that they share counts once for each."""
        return sum(map(processes.resident_bytes, self._family()[1:])) / 2**20

    def cancel(self) -> None:
        """Have it killed, without waiting; may be called from any thread."""
        with contextlib.suppress(OSError):
            self._control.close()

    def end(self) -> None:
        """Kill it and all its descendants; all are gone on return. May be called again."""
        import psutil

        self.cancel()
        self.supervisor.send_signal(signal.SIGCONT)  # without an enforcer a run may have stopped it
        if self.supervisor.wait() < 0:  # the supervisor itself was killed
            for process in self._own_seconds:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()  # psutil checks that the number still belongs to the same process
        self.output.close()

    def _family(self) -> list[psutil.Process]:
        """Return the supervisor and its descendants; nothing if it has ended."""
        import psutil

        with contextlib.suppress(psutil.NoSuchProcess):
            supervisor = psutil.Process(self.supervisor.pid)
            return [supervisor, *supervisor.children(recursive=True)]
        return []


def _with_signals(code: int) -> int:
    return 128 - code if code in SIGNAL_CODES else code
