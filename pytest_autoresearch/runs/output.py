"""What a run prints: it is read line by line until the run ends, and then no process of it is left."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import re
import selectors
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
    RunPruned,
    RunTimedOut,
    ScoreRefused,
)
from pytest_autoresearch.runs.session import RunSession
from pytest_autoresearch.sandbox.process import SandboxedProcess
from pytest_autoresearch.system.log import BoundedLog
from pytest_autoresearch.system.signals import exit_reason
from pytest_autoresearch.text import quoted

TAIL_LINES = 20  # of the output, quoted when a run crashes
LONGEST_LINE = 1 << 16  # bytes; a run may print anything
EXIT_GRACE = 5.0  # seconds to exit after closing the output
LEFTOVER = 1.0  # seconds to read what is left in the pipe once the script has ended
BETWEEN_WEIGHINGS = 0.5  # seconds between looks at the memory that a run uses
TICK = 0.2  # seconds between checks of a silent run

# How Python, torch and torch's allocators name an exception for want of memory.
OUT_OF_MEMORY = re.compile(
    r"(\[rank\d+\]: )?([\w.]+: )?([\w.]*(MemoryError|OutOfMemoryError)\b"
    r"|[\w.]*(RuntimeError|AcceleratorError): .*(out of|not enough|can't allocate) memory"
    r"|[\w.]*(RuntimeError|AcceleratorError): .*_STATUS_ALLOC_FAILED)"
)

OnLine = Callable[[str], str | None]
"""Is called with each line of output (a carriage return ends one too); may return why the run shall end."""


@dataclasses.dataclass(slots=True)
class Output:
    """What is kept of what a process prints."""

    values: dict[str, str] = dataclasses.field(default_factory=dict)
    """Its ``key: value`` lines after the last ``---``; the last line of each key counts."""
    tail: deque[str] = dataclasses.field(default_factory=lambda: deque(maxlen=TAIL_LINES))
    """Its last lines, without blank ones."""

    def add(self, line: str) -> None:
        """Take another line in."""
        if line.strip():
            self.tail.append(line)
        if line.strip() == "---":
            self.values.clear()  # the summary begins
        elif match := re.fullmatch(r"(\w+):\s+(\S.*?)\s*", line):
            self.values[match[1]] = match[2]


def follow(
    process: SandboxedProcess,
    *,
    limit: float | None,
    log: Path | None = None,
    on_line: OnLine = lambda _line: None,
    session: RunSession | None = None,
    memory_limit: float | None = None,
) -> Output:
    """Read what a run prints, and answer what it asks, until it is dead; return what it printed.

    *limit* is in seconds of wall time, and *memory_limit* in MiB of all its processes together. The output is
    appended to *log*.

    Raises:
        RunTimedOut: it ran longer than *limit*, or than the limits of its session.
        RunPruned: *on_line* ended it.
        ScoreRefused: the model that it handed in was refused.
        RunOutOfMemory: it used more than *memory_limit*, or failed for want of memory, or left too little for
            its model to be scored.
        RunCrashed: its exit code was not 0 for another reason.
    """
    output = Output()
    began = weighed = time.monotonic()

    def check() -> None:
        nonlocal weighed
        now = time.monotonic()
        if memory_limit is not None and now - weighed > BETWEEN_WEIGHINGS:
            weighed = now
            check_memory(process.memory(), memory_limit, output.tail)
        if limit is not None and now - began >= limit:
            raise RunAborted(f"still running after {limit:.0f} s, its limit")
        if session is not None:
            session.check()

    failure: RunFailed | None = None
    try:
        for line in _lines(_chunks(process, check, session), log):
            output.add(line)
            if reason := on_line(line):
                raise RunPruned(reason)
        _check_exit(process, output.tail)
    except RunAborted as error:
        failure = RunTimedOut(str(error), output.tail)
    except RunFailed as error:
        failure = error
    finally:
        process.end()
    if failure := _failure(session, failure, output.tail):
        raise failure
    return output


def _failure(session: RunSession | None, failure: RunFailed | None, tail: Iterable[str]) -> RunFailed | None:
    """Return why a run gave no score, where *failure* is how its process failed, if it did."""
    if session is None:
        return failure
    if session.refusal is not None:
        return ScoreRefused(session.refusal, tail)
    if session.shortage is not None:
        return RunOutOfMemory(session.shortage, tail)
    # Once it has a score, it may be slow to exit, or was killed for the scorer's sake.
    is_excused = session.score is not None and (isinstance(failure, RunTimedOut) or session.ended_for_scorer)
    return None if is_excused else failure


def _check_exit(process: SandboxedProcess, tail: deque[str]) -> None:
    """Raise why a run that has closed its output failed, unless its exit code is 0."""
    try:
        code = process.wait(EXIT_GRACE)
    except subprocess.TimeoutExpired:
        reason = f"still running {EXIT_GRACE:.0f} s after it closed its output"
        raise RunTimedOut(reason, tail) from None
    if code:
        is_for_memory = any(OUT_OF_MEMORY.match(line.strip()) for line in tail)
        kind = RunOutOfMemory if is_for_memory else RunCrashed
        raise kind(_exit_reason(code, tail), tail)


def check_memory(used: float, limit: float, tail: Iterable[str]) -> None:
    """Raise :class:`RunOutOfMemory` if more MiB are *used* than the *limit*."""
    if used > limit:
        raise RunOutOfMemory(f"it used {used:.0f} MB of memory, its limit is {limit:.0f} MB", tail)


def _lines(chunks: Iterable[bytes], log: Path | None) -> Iterator[str]:
    """Yield the lines in *chunks*, and append the chunks to *log*; a carriage return ends a line too."""
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
    process: SandboxedProcess, check: Callable[[], None], session: RunSession | None
) -> Iterator[bytes]:
    """Yield what the run prints as it comes; in between, *check* the run, and let its session answer."""
    descriptor = process.output.fileno()
    with selectors.PollSelector() as selector:  # a run may use up the user's epoll watches
        selector.register(descriptor, selectors.EVENT_READ)
        if session is not None:
            selector.register(session, selectors.EVENT_READ, session)
        ended = math.inf  # when the script ended; its children may still hold the pipe, and write
        while (now := time.monotonic()) < ended + LEFTOVER:
            check()
            if process.exit_code() is not None:
                ended = min(ended, now)
            ready = {key.fd: key.data for key, _ in selector.select(TICK)}
            if not ready and ended < math.inf:
                return
            for readable in filter(None, ready.values()):
                if not readable.answer():
                    selector.unregister(readable)
            if descriptor in ready:
                if not (chunk := os.read(descriptor, LONGEST_LINE)):
                    return
                yield chunk


def _exit_reason(code: int, tail: deque[str]) -> str:
    return f"{exit_reason(code)}: {quoted(tail[-1])}" if tail else exit_reason(code)
