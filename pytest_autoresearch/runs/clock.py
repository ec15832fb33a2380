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
        """Do the work *count* times, and return the CPU seconds of each, or raise ScorerUnavailable."""


class Clock:
    """Wall time, or the CPU time of a run; if calibrated, a second of it is worth what the core does in it.

    CPU time leaves out the time slices of other processes. But it also runs while a neighbour slows the core:
    by its caches, its memory or the core's other thread. So under a calibrated clock the run is stopped once
    a second, and a calibration does a fixed piece of work on the same cores. The run can see how much of its
    budget is used, and decides nothing.

    A run must not gain time by slowing the probe. It is stopped with all its descendants, and a probe that is
    thrown away refills the caches. If the run uses the CPU although it is stopped, the probes of that pause
    do not count, and its time counts at the machine's best speed. However slow a probe is, a second counts
    for :data:`SLOWEST` of that at least.
    """

    rate = 1.0
    """What a second of CPU time is worth now."""
    page: ClockPage | None = None
    """What the run sees of a calibrated clock."""

    def __init__(self, kind: ClockKind, process: SandboxedProcess, calibration: Calibration) -> None:
        """Begin uncorrected: until training starts, a calibrated clock is CPU time."""
        self._kind = kind
        self._process = process
        self._calibration = calibration
        self._probes: deque[float] = deque(maxlen=WINDOW)
        self._cpu = process.cpu_seconds()
        self._seconds = 0.0
        self._started: float | None = None
        self._due = math.inf
        if kind == "calibrated":
            self.page = ClockPage()

    def seconds(self) -> float:
        """Return the seconds since an arbitrary moment."""
        if self._kind == "wall":
            return time.monotonic()
        cpu = self._process.cpu_seconds()
        self._seconds += (cpu - self._cpu) * self.rate
        self._cpu = cpu
        return self._seconds

    def start(self) -> None:
        """Learn the machine's speed, for training is about to begin, or raise ScorerUnavailable."""
        if self._kind == "calibrated":
            self._probe(WINDOW)
        self._started = self.seconds()
        self.show()

    def charge(self, seconds: float) -> None:
        """Show the run that *seconds* of its budget are used before its training begins."""
        assert self._started is not None
        self._started -= seconds
        self.show()

    def correct(self) -> None:
        """Stop the run for a few probes, unless the last pause was less than a second ago."""
        if time.monotonic() >= self._due:
            self._probe(PROBES)

    def show(self) -> float:
        """Update the page that the run sees; return the CPU seconds so far."""
        now = self.seconds()
        if self.page is not None:
            used, rate = (0.0, 0.0) if self._started is None else (now - self._started, self.rate)
            self.page.show(used, self._cpu, rate)
        return self._cpu

    def close(self) -> None:
        """Close the page; a run that still maps it keeps it."""
        if self.page is not None:
            self.page.close()

    def _probe(self, count: int) -> None:
        with self._process.stopped():
            before = self._process.cpu_seconds()
            probes = self._calibration.probe(count)
            self.seconds()  # the time up to here, also while stopped, counts at the old rate
            if self._process.cpu_seconds() - before > MAX_CPU_WHILE_STOPPED:
                self.rate = NOMINAL / self._calibration.quickest
            else:
                self._probes.extend(probes)
                slowest = self._calibration.quickest / SLOWEST
                self.rate = NOMINAL / min(statistics.fmean(self._probes), slowest)
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
        """Map the page of a *descriptor*, *at* so many CPU seconds of the run's processes.

        This process's own are added from here on; those of others come in when the page changes.
        """
        self._page = mmap.mmap(descriptor, mmap.PAGESIZE, access=mmap.ACCESS_READ)
        self._others = at - time.process_time()

    def seconds(self) -> float:
        """Return how much of the budget is used."""
        while True:
            version, used, at, rate, again = ClockPage.LAYOUT.unpack(self._page[: ClockPage.LAYOUT.size])
            if version == again:
                break
        own = time.process_time()
        self._others = max(self._others, at - own)  # other processes have gone on since
        return float(used + max(own + self._others - at, 0.0) * rate)
