"""What a run prints, read while the clock runs; at its end the whole process tree is dead."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import re
import selectors
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from pytest_autoresearch.errors import (
    RunAborted,
    RunCrashed,
    RunFailed,
    RunOutOfMemory,
    RunTimedOut,
    ScoreRefused,
)
from pytest_autoresearch.runs.session import RunSession
from pytest_autoresearch.sandbox.launch import SandboxedProcess
from pytest_autoresearch.system.log import BoundedLog
from pytest_autoresearch.system.text import quoted

TAIL_LINES = 20  # of the output, quoted when a run crashes
LONGEST_LINE = 1 << 16  # bytes; a run may print anything
EXIT_GRACE = 5.0  # seconds to exit after closing the output
LEFTOVER = 1.0  # seconds to read what is left in the pipe once the script has ended
BETWEEN_WEIGHINGS = 0.5  # seconds between looks at the memory that a run uses
TICK = 0.2  # seconds that a silent run is left alone

# What the last exception of a script is called, by Python, torch, and torch's allocators.
OUT_OF_MEMORY = re.compile(
    r"(\[rank\d+\]: )?([\w.]+: )?([\w.]*(MemoryError|OutOfMemoryError)\b"
    r"|[\w.]*(RuntimeError|AcceleratorError): .*(out of|not enough|can't allocate) memory"
    r"|[\w.]*(RuntimeError|AcceleratorError): .*_STATUS_ALLOC_FAILED)"
)

OnLine = Callable[[str], None]


@dataclasses.dataclass(slots=True)
class Output:
    """What is kept of what a process prints."""

    values: dict[str, str] = dataclasses.field(default_factory=dict)
    """Its ``key: value`` lines, those of the summary if there is one; the last one of a name counts."""
    tail: deque[str] = dataclasses.field(default_factory=lambda: deque(maxlen=TAIL_LINES))
    """Its last lines that are not blank."""

    def add(self, line: str) -> None:
        """Take another line in."""
        if line.strip():
            self.tail.append(line)
        if line.strip() == "---":
            self.values.clear()  # what comes now is the summary
        elif match := re.fullmatch(r"(\w+):\s+(\S.*?)\s*", line):
            self.values[match[1]] = match[2]


def follow(
    guarded: SandboxedProcess,
    *,
    limit: float | None,
    log: Path | None = None,
    on_line: OnLine = lambda _line: None,
    handover: RunSession | None = None,
    memory_limit: float | None = None,
) -> Output:
    """Read what a run prints, and answer what it asks, until it ends; return what it printed.

    Raises:
        TimedOut: it ran longer than *limit* seconds, or than the terms of its handover allow.
        ScoreRefused: what it handed over was refused.
        Crashed: its exit code was not 0.
        OutOfMemory: and for that reason, or it used more than *memory_limit* MiB, or it left too little for
            its model to be scored.
    """
    output = Output()
    deadline = math.inf if limit is None else time.monotonic() + limit
    failure: RunFailed | None = None
    weighed = time.monotonic()

    def check() -> None:
        nonlocal weighed
        if memory_limit is not None and time.monotonic() - weighed > BETWEEN_WEIGHINGS:
            weighed = time.monotonic()
            check_memory(guarded.memory(), memory_limit, output.tail)
        if time.monotonic() >= deadline:
            raise RunAborted(f"still running after {limit:.0f} s, its limit")
        if handover is not None:
            handover.check()

    try:
        for line in _lines(_chunks(guarded, check, handover), log):
            output.add(line)
            on_line(line)
        if code := guarded.wait(EXIT_GRACE):
            reason = _exit_reason(code, output.tail)
            failure = (RunOutOfMemory if _is_memory(output.tail) else RunCrashed)(reason, output.tail)
    except subprocess.TimeoutExpired:
        failure = RunTimedOut(f"still running {EXIT_GRACE:.0f} s after it closed its output", output.tail)
    except RunAborted as error:
        failure = RunTimedOut(str(error), output.tail)
    except RunCrashed as error:
        failure = error
    finally:
        guarded.end()
    return _judged(output, failure, handover)


def check_memory(used: float, limit: float, tail: Iterable[str]) -> None:
    """Raise :class:`OutOfMemory` if more MiB are *used* than the *limit*."""
    if used > limit:
        raise RunOutOfMemory(f"it used {used:.0f} MB of memory, its limit is {limit:.0f} MB", tail)


def _judged(output: Output, failure: RunFailed | None, handover: RunSession | None) -> Output:
    """Return the output of a run that has come to something, else raise what became of it."""
    if handover is not None and handover.refusal is not None:  # whatever else it did then
        raise ScoreRefused(handover.refusal, output.tail)
    if handover is not None and handover.shortage is not None:
        raise RunOutOfMemory(handover.shortage, output.tail)
    if handover is None or handover.score is None:
        excused = False
    else:  # a run that has its score, and only leaves slowly or was ended by us, has done what it had to
        excused = isinstance(failure, RunTimedOut) or handover.ended
    if failure is None or excused:
        return output
    raise failure


def _lines(chunks: Iterable[bytes], log: Path | None) -> Iterator[str]:
    """Yield the lines in what is read, which is logged as well; a carriage return ends one too."""
    pending = b""
    with contextlib.nullcontext() if log is None else BoundedLog(log) as record:
        for chunk in chunks:
            if record is not None:
                record.write(chunk)
            *complete, pending = re.split(rb"\r\n|[\r\n]", pending + chunk)
            pending = pending[-LONGEST_LINE:]
            for line in complete:
                yield line.decode(errors="replace")
    if pending:
        yield pending.decode(errors="replace")


def _chunks(
    guarded: SandboxedProcess, check: Callable[[], None], handover: RunSession | None
) -> Iterator[bytes]:
    """Yield what the run prints as it comes; in between *check* its time, and see to its handover."""
    assert guarded.process.stdout is not None
    descriptor = guarded.process.stdout.fileno()
    with selectors.PollSelector() as selector:  # a user has so many epoll watches, which a run may use up
        selector.register(descriptor, selectors.EVENT_READ)
        if handover is not None:
            selector.register(handover, selectors.EVENT_READ, handover)
        gone = math.inf  # when the script ended; a child of its may still hold the pipe, and write
        while (now := time.monotonic()) < gone + LEFTOVER:
            check()
            if guarded.exit_code() is not None:
                gone = min(gone, now)
            ready = {key.fd: key.data for key, _ in selector.select(TICK)}
            if not ready and gone < math.inf:
                return
            for end in filter(None, ready.values()):
                if not end.answer():
                    selector.unregister(end)
            if descriptor in ready:
                if not (chunk := os.read(descriptor, LONGEST_LINE)):
                    return
                yield chunk


def _is_memory(tail: deque[str]) -> bool:
    """Tell whether the last words of a script are those of one that has run out of memory."""
    return any(OUT_OF_MEMORY.match(line.strip()) for line in tail)


def _exit_reason(code: int, tail: deque[str]) -> str:
    # Not every signal has a name of its own: real-time ones are numbers.
    names = {number.value: number.name for number in signal.Signals}
    how = f"killed by {names.get(-code, f'signal {-code}')}" if code < 0 else f"exit code {code}"
    return f"{how}: {quoted(tail[-1])}" if tail else how
