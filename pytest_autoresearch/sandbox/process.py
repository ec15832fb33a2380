"""A running sandboxed process with all its descendants: its output, its use of resources, its end."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

if TYPE_CHECKING:
    import psutil

PROCESS_CLOCK = 2  # CPUCLOCK_SCHED, a part of the id of a process's clock: see clock_getcpuclockid(3)
STILL = frozenset(b"TtZXx")  # states: stopped, stopped by a tracer, ended
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
        return 128 - code if code is not None and code in SIGNAL_CODES else code

    def wait(self, timeout: float) -> int:
        """Return the exit code, negative for a signal, or raise TimeoutExpired after *timeout* seconds."""
        code = self.supervisor.wait(timeout)
        return 128 - code if code in SIGNAL_CODES else code

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
                    times, own = process.cpu_times(), _own_seconds(process)
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
                moving := [process for process in self._family()[1:] if _is_moving(process)]
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
        return sum(map(_resident_bytes, self._family()[1:])) / 2**20

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


def _own_seconds(process: psutil.Process) -> float:
    """Return the processor seconds of a process without its children."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # it has ended
            return time.clock_gettime(~process.pid << 3 | PROCESS_CLOCK)
    times = process.cpu_times()
    return float(times.user + times.system)


def _is_moving(process: psutil.Process) -> bool:
    if sys.platform == "linux":
        # The name of the program is in brackets, and may hold any byte.
        return any(stat.rpartition(b") ")[2][0] not in STILL for stat in _of_threads(process, "stat"))
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() not in {psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}
    return False


def _resident_bytes(process: psutil.Process) -> int:
    if sys.platform == "linux":
        # Threads share their memory, and one that has ended shows none.
        pages = (int(statm.split()[1]) for statm in _of_threads(process, "statm"))
        return next(filter(None, pages), 0) * resource.getpagesize()
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        return int(process.memory_info().rss)
    return 0


def _of_threads(process: psutil.Process, name: str) -> Iterator[bytes]:
    """Yield the content of a file of each thread of a process.

    psutil, like ``ps``, reads the first thread. If that has ended and others go on, the kernel reports a
    zombie without memory.
    """
    threads = Path(f"/proc/{process.pid}/task")
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # the process has ended
        for thread in os.listdir(threads):  # noqa: PTH208 - for the numbers alone
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended
                yield (threads / thread / name).read_bytes()
