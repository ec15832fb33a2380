"""The clock of a budget, which the harness keeps, and the page of memory on which a run can read it."""

from __future__ import annotations

import contextlib
import fcntl
import math
import mmap
import os
import statistics
import struct
import sys
import tempfile
import time
from collections import deque
from typing import TYPE_CHECKING, Protocol

from pytest_autoresearch.records.overheads import ClockKind

if TYPE_CHECKING:
    from pytest_autoresearch.sandbox.process import SandboxedProcess

# A calibrated second is a second of a core that does the work of scoring/speed.py in this time.
NOMINAL = 0.012
INTERVAL = 1.0  # seconds of wall time between two pauses for probes
PROBES = 4  # in each pause
WINDOW = 16  # probes whose mean gives the rate: a single one scatters by 4 to 8 %
# A slow-down beyond this share of the machine's best speed is not credited: a run could cause it on purpose.
SLOWEST = 0.4
MAX_CPU_WHILE_STOPPED = 0.002  # seconds


class Calibration(Protocol):
    """Measures how fast the cores of the runs are now, by a fixed piece of work."""

    @property
    def quickest(self) -> float:
        """Seconds of a probe at the machine's best so far."""

    def probe(self, count: int) -> list[float]:
        """Do the work *count* times, and return the CPU seconds of each.

        Raises:
            ScorerUnavailable: it cannot be done.
        """


class Clock:
    """Wall time, or the CPU time of a run."""

    def __init__(self, kind: ClockKind, process: SandboxedProcess) -> None:
        self._kind = kind
        self._process = process

    def seconds(self) -> float:
        """Return the seconds since an arbitrary moment."""
        return time.monotonic() if self._kind == "wall" else self._process.cpu_seconds()

    @property
    def rate(self) -> float:
        """What an uncounted second is worth on this clock."""
        return 1.0

    def start(self) -> None:
        """Prepare for training, which is about to begin."""

    def charge(self, seconds: float) -> None:
        """Show the run that *seconds* of its budget are used before its training begins."""

    def correct(self) -> None:
        """Learn the machine's present speed, if it is time to; called again and again while a run trains."""

    def close(self) -> None:
        """Release what the clock holds."""


class CalibratedClock(Clock):
    """CPU time, each second worth what the core does in it.

    CPU time leaves out the time slices of other processes. But it also runs while a neighbour slows the core:
    by its caches, its memory or the core's other thread. So the run is stopped once a second, and a
    calibration does a fixed piece of work on the same cores. The run can see how much of its budget is used,
    and decides nothing.

    A run must not gain time by slowing the probe. It is stopped with all its descendants, and a probe that is
    thrown away refills the caches. If the run uses the CPU although it is stopped, the probes of that pause
    do not count, and its time counts at the machine's best speed. However slow a probe is, a second counts
    for :data:`SLOWEST` of that at least.
    """

    def __init__(self, process: SandboxedProcess, calibration: Calibration) -> None:
        """Begin uncorrected: until training starts, this is CPU time."""
        super().__init__("calibrated", process)
        self._calibration = calibration
        self._probes: deque[float] = deque(maxlen=WINDOW)
        self._cpu = process.cpu_seconds()
        self._seconds = 0.0
        self._rate = 1.0
        self._started: float | None = None
        self._due = math.inf
        self.page = ClockPage()

    def seconds(self) -> float:
        """Return the calibrated seconds so far."""
        cpu = self._process.cpu_seconds()
        self._seconds += (cpu - self._cpu) * self._rate
        self._cpu = cpu
        return self._seconds

    def start(self) -> None:
        """Learn the machine's speed.

        Raises:
            ScorerUnavailable: nothing can probe it.
        """
        self._probe(WINDOW)
        self._started = self.seconds()
        self.show()

    @property
    def rate(self) -> float:
        """What a second of CPU time is worth now."""
        return self._rate

    def charge(self, seconds: float) -> None:
        """Show the run that *seconds* of its budget are used before its training begins."""
        assert self._started is not None
        self._started -= seconds
        self.show()

    def correct(self) -> None:
        """Stop the run for a few probes, unless the last pause was less than a second ago.

        Raises:
            ScorerUnavailable: nothing can probe the speed.
        """
        if time.monotonic() >= self._due:
            self._probe(PROBES)

    def show(self) -> float:
        """Update the page that the run sees; return the CPU seconds so far."""
        now = self.seconds()
        if self._started is None:
            self.page.show(0.0, self._cpu, 0.0)
        else:
            self.page.show(now - self._started, self._cpu, self._rate)
        return self._cpu

    def close(self) -> None:
        """Close the page; a run that still maps it keeps it."""
        self.page.close()

    def _probe(self, count: int) -> None:
        with self._process.stopped():
            before = self._process.cpu_seconds()
            probes = self._calibration.probe(count)
            self.seconds()  # the time up to here, also while stopped, counts at the old rate
            if self._process.cpu_seconds() - before > MAX_CPU_WHILE_STOPPED:
                self._rate = NOMINAL / self._calibration.quickest
            else:
                self._probes.extend(probes)
                slowest = self._calibration.quickest / SLOWEST
                self._rate = NOMINAL / min(statistics.fmean(self._probes), slowest)
            self.show()
        self._due = time.monotonic() + INTERVAL


class ClockPage:
    """A page of memory that the run can read, and only the harness write.

    It holds how much of the budget was used when the run was last stopped, the CPU seconds of all its
    processes at that time, and what each CPU second counts for since.
    """

    # The version comes first and last: a reader that was stopped half-way finds two that differ.
    LAYOUT = struct.Struct("=QdddQ")
    F_SEAL_FUTURE_WRITE = 0x10  # Python has no name for it

    def __init__(self) -> None:
        if sys.platform == "linux":
            descriptor = os.memfd_create("clock", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            self._descriptor = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
        else:
            descriptor, name = tempfile.mkstemp()
            self._descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
            os.unlink(name)  # noqa: PTH108 - a string
        os.ftruncate(descriptor, mmap.PAGESIZE)
        self._page = mmap.mmap(descriptor, mmap.PAGESIZE)
        if sys.platform == "linux":  # a run could reopen the descriptor for writing
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            with contextlib.suppress(OSError):  # before Linux 5.1; a forger fools only itself
                fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals | self.F_SEAL_FUTURE_WRITE)
        os.close(descriptor)
        self._version = 0

    def fileno(self) -> int:
        """Return the descriptor for the run."""
        return self._descriptor

    def show(self, used: float, at: float, rate: float) -> None:
        """Write the seconds *used*, *at* so many CPU seconds of the run, and what each one counts for now."""
        self._version += 1
        shown = self.LAYOUT.pack(self._version, used, at, rate, self._version)
        self._page[: len(shown)] = shown

    def close(self) -> None:
        """Close the harness's side."""
        self._page.close()
        os.close(self._descriptor)


class ClockReader:
    """The run's side of a :class:`ClockPage`, for its information: the harness has its own clock."""

    def __init__(self, descriptor: int, at: float) -> None:
        """Map the page.

        Args:
            descriptor: of the page.
            at: the CPU seconds of the run's processes, just now. This process's own are added from here on;
                those of other processes come in when the page changes.
        """
        self._page = mmap.mmap(descriptor, mmap.PAGESIZE, access=mmap.ACCESS_READ)
        self._others = at - time.process_time()

    def seconds(self) -> float:
        """Return how much of the budget is used."""
        used, at, rate = self._read()
        own = time.process_time()
        self._others = max(self._others, at - own)  # other processes have gone on since
        return used + max(own + self._others - at, 0.0) * rate

    def _read(self) -> tuple[float, float, float]:
        while True:
            version, used, at, rate, again = ClockPage.LAYOUT.unpack(self._page[: ClockPage.LAYOUT.size])
            if version == again:
                return used, at, rate
