"""What the kernel tells about a process with all of its threads, and how a process ended.

psutil, like ``ps``, reads the first thread. If that has ended and others go on, the kernel reports a zombie
without memory.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

PROCESS_CLOCK = 2  # CPUCLOCK_SCHED, a part of the id of a process's clock: see clock_getcpuclockid(3)
STILL = frozenset(b"TtZXx")  # stopped, stopped by a tracer, ended


def exit_reason(code: int) -> str:
    """Return in words how a process ended, from an exit code that is negative for a signal."""
    if code >= 0:
        return f"exit code {code}"
    # Real-time signals have numbers only.
    names = {number.value: number.name for number in signal.Signals}
    return f"killed by {names.get(-code, f'signal {-code}')}"


def own_seconds(process: psutil.Process) -> float:
    """Return the processor seconds of a process without its children; on Linux to the nanosecond.

    Raises:
        psutil.NoSuchProcess: it has ended.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # it has ended
            return time.clock_gettime(~process.pid << 3 | PROCESS_CLOCK)
    times = process.cpu_times()
    return float(times.user + times.system)


def is_moving(process: psutil.Process) -> bool:
    """Return whether any thread of a process may use the processor now: it is neither stopped nor ended."""
    if sys.platform == "linux":
        # The name of the program is in brackets, and may hold any byte.
        return any(stat.rpartition(b") ")[2][0] not in STILL for stat in _of_threads(process, "stat"))
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() not in {psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}
    return False


def resident_bytes(process: psutil.Process) -> int:
    """Return the bytes of memory that a process holds; 0 if it has ended."""
    if sys.platform == "linux":
        # Threads share their memory, and one that has ended shows none.
        pages = (int(statm.split()[1]) for statm in _of_threads(process, "statm"))
        return next(filter(None, pages), 0) * resource.getpagesize()
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        return int(process.memory_info().rss)
    return 0


def _of_threads(process: psutil.Process, name: str) -> Iterator[bytes]:
    """Yield the content of a file of each thread of a process, beginning with the first thread."""
    threads = Path(f"/proc/{process.pid}/task")
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # the process has ended
        for thread in os.listdir(threads):  # noqa: PTH208 - for the numbers alone
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended
                yield (threads / thread / name).read_bytes()
