"""What the kernel tells of a process with all of its threads.

psutil, like ``ps``, asks its first thread. That one may have ended while others go on: the kernel then says
that the process is a zombie and has no memory.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

PROCESS_CLOCK = 2  # CPUCLOCK_SCHED: what makes a clock's id of a process's, as clock_getcpuclockid(3) does
STILL = frozenset(b"TtZXx")  # stopped, stopped by a tracer, ended


def own_seconds(process: psutil.Process) -> float:
    """Return the processor seconds of a process alone, to the nanosecond where the kernel tells.

    Raises:
        psutil.NoSuchProcess: it has ended.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # it has ended
            return time.clock_gettime(~process.pid << 3 | PROCESS_CLOCK)
    times = process.cpu_times()
    return float(times.user + times.system)


def moves(process: psutil.Process) -> bool:
    """Return whether any thread of a process may use the processor now; False if all have ended.

    Raises:
        psutil.NoSuchProcess: it has ended; not on Linux.
    """
    if sys.platform == "linux":
        # The name of a program comes in brackets, and may hold any byte.
        return any(stat.rpartition(b") ")[2][0] not in STILL for stat in _of_threads(process, "stat"))
    import psutil

    return process.status() not in {psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}


def resident(process: psutil.Process) -> int:
    """Return the bytes of memory that a process holds.

    Raises:
        psutil.NoSuchProcess: it has ended; not on Linux.
    """
    if sys.platform == "linux":
        # All threads have the same memory, and one that has ended has none.
        pages = (int(statm.split()[1]) for statm in _of_threads(process, "statm"))
        return next(filter(None, pages), 0) * resource.getpagesize()
    return int(process.memory_info().rss)


def _of_threads(process: psutil.Process, name: str) -> Iterator[bytes]:
    """Yield what a file of each thread of a process holds, the first thread's first."""
    threads = Path(f"/proc/{process.pid}/task")
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # the process has ended
        for thread in os.listdir(threads):  # noqa: PTH208 - for the numbers alone
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # the thread has
                yield (threads / thread / name).read_bytes()
