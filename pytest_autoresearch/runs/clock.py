"""The clock that a budget is counted on, held by the harness, and the face of it that a run may look at."""

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
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pytest_autoresearch.sandbox.launch import SandboxedProcess
    from pytest_autoresearch.scoring.client import Scorer

Kind = Literal["calibrated", "cpu", "wall"]
"""Wall time; the processor's time in all processes of a run together; or that, corrected for its pace."""

# A calibrated second is a second of a core that does the probe of pace.py in this time.
NOMINAL = 0.012
INTERVAL = 1.0  # seconds of wall time between two pauses for probes
PROBES = 4  # in each pause
WINDOW = 16  # probes whose mean is the pace: one alone scatters by 4 to 8 %
# Nobody slows a core to less than this share of the pace that it once had, but for somebody who wants to.
SLOWEST = 0.4
RESTLESS = 0.002  # seconds of the processor's time that a run may use while it is stopped


def kind_of(named: str | None) -> Kind:
    """Return the kind of clock that ``prepare.py`` names: wall time, if it is none of the others."""
    match named:
        case "calibrated" | "cpu":
            return named
    return "wall"


class Clock:
    """Seconds of wall time, or of the processor's."""

    def __init__(self, kind: Kind, guarded: SandboxedProcess) -> None:
        self._kind = kind
        self._guarded = guarded

    def seconds(self) -> float:
        """Return the seconds that have passed since any one moment."""
        return time.monotonic() if self._kind == "wall" else self._guarded.cpu_seconds()

    @property
    def rate(self) -> float:
        """What a second that has not been counted yet is worth, in those of this clock."""
        return 1.0

    def start(self) -> None:
        """Get ready for training, which is about to begin."""

    def charge(self, seconds: float) -> None:
        """Show that so much of the budget is used before training begins."""

    def correct(self) -> None:
        """Look whether the machine has changed its pace; called now and then while a run trains."""

    def close(self) -> None:
        """Let go of what the clock holds."""


class Calibrated(Clock):
    """Seconds of the processor's time, each worth what a core does in it just now.

    Time slices that go to others are not counted, which is what the processor's time is good for. But it
    runs on while a neighbour slows the core, by its caches, its memory or the other half of the core; so
    once a second the run is stopped, and the scorer does a fixed piece of work on the same machine. The
    run sees how much is used, and decides nothing.

    What a run could do to slow the probe must not buy it time. It is stopped, with all its descendants,
    and the caches that it leaves are filled by a probe that is thrown away. If it has used the processor
    all the same while it was stopped, the probes of that pause do not count, and its time counts as at the
    machine's best. However slow a probe is, a second counts for a good part of that.
    """

    def __init__(self, guarded: SandboxedProcess, scorer: Scorer) -> None:
        """Begin uncorrected: until training starts, these are the processor's seconds."""
        super().__init__("calibrated", guarded)
        self._scorer = scorer
        self._probes: deque[float] = deque(maxlen=WINDOW)
        self._cpu = guarded.cpu_seconds()
        self._seconds = 0.0
        self._rate = 1.0
        self._started: float | None = None
        self._due = math.inf
        self.face = ClockPage()

    def seconds(self) -> float:
        """Return the calibrated seconds so far."""
        cpu = self._guarded.cpu_seconds()
        self._seconds += (cpu - self._cpu) * self._rate
        self._cpu = cpu
        return self._seconds

    def start(self) -> None:
        """Learn the machine's pace, once the scorer is ready to tell it.

        Raises:
            scorer.Broken: it does not get ready.
        """
        self._probe(WINDOW)
        self._started = self.seconds()
        self.show()

    @property
    def rate(self) -> float:
        """What a second of the processor's time is worth now."""
        return self._rate

    def charge(self, seconds: float) -> None:
        """Show that so much of the budget is used before training begins."""
        assert self._started is not None
        self._started -= seconds
        self.show()

    def correct(self) -> None:
        """Stop the run for a few probes, unless it was stopped less than a second ago.

        Raises:
            scorer.Broken: nobody is there to do them.
        """
        if time.monotonic() >= self._due:
            self._probe(PROBES)

    def show(self) -> float:
        """Bring the run's face of the clock up to date; return the processor's seconds so far."""
        now = self.seconds()
        if self._started is None:
            self.face.show(0.0, self._cpu, 0.0)
        else:
            self.face.show(now - self._started, self._cpu, self._rate)
        return self._cpu

    def close(self) -> None:
        """Close the face, and let a run that still has it keep it."""
        self.face.close()

    def _probe(self, count: int) -> None:
        with self._guarded.stopped():
            before = self._guarded.cpu_seconds()
            probes = self._scorer.probe(count)
            self.seconds()  # what is past counts at the old rate, what a stopped run has used as well
            if self._guarded.cpu_seconds() - before > RESTLESS:
                self._rate = NOMINAL / self._scorer.quickest
            else:
                self._probes.extend(probes)
                slowest = self._scorer.quickest / SLOWEST
                self._rate = NOMINAL / min(statistics.fmean(self._probes), slowest)
            self.show()
        self._due = time.monotonic() + INTERVAL


class ClockPage:
    """What a run sees of its clock: a page of memory that it can read, and nobody but the harness write.

    It holds how much of the budget was used when the run was last stopped, the processor's seconds that
    all its processes had used then, and what each of those counts for since.
    """

    # The version comes first and last: whoever was stopped while reading finds two that differ.
    LAYOUT = struct.Struct("=QdddQ")
    WRITABLE_BY_NOBODY_ELSE = 0x10  # F_SEAL_FUTURE_WRITE, which Python has no name for

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
        if sys.platform == "linux":  # a descriptor can be opened once more, to write
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            with contextlib.suppress(OSError):  # before Linux 5.1; a run fools only itself with a forged face
                fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals | self.WRITABLE_BY_NOBODY_ELSE)
        os.close(descriptor)
        self._version = 0

    def fileno(self) -> int:
        """Return the descriptor to hand to the run."""
        return self._descriptor

    def show(self, used: float, at: float, rate: float) -> None:
        """Write what a run is to see."""
        self._version += 1
        shown = self.LAYOUT.pack(self._version, used, at, rate, self._version)
        self._page[: len(shown)] = shown

    def close(self) -> None:
        """Close it on the harness's side."""
        self._page.close()
        os.close(self._descriptor)


class ClockReader:
    """The run's side of a :class:`Face`. It is information, and no more: the harness has its own clock."""

    def __init__(self, descriptor: int, at: float) -> None:
        """Look at a clock.

        Args:
            descriptor: of its face.
            at: the processor's seconds of the run's processes, just now. From here on this process's own
                are added; those of others, and of its children, come in when the face changes.
        """
        self._page = mmap.mmap(descriptor, mmap.PAGESIZE, access=mmap.ACCESS_READ)
        self._others = at - time.process_time()

    def seconds(self) -> float:
        """Return how much of the budget is used."""
        used, at, rate = self._read()
        own = time.process_time()
        self._others = max(self._others, at - own)  # helpers have gone on since
        return used + max(own + self._others - at, 0.0) * rate

    def _read(self) -> tuple[float, float, float]:
        while True:
            version, used, at, rate, again = ClockPage.LAYOUT.unpack(self._page[: ClockPage.LAYOUT.size])
            if version == again:
                return used, at, rate
