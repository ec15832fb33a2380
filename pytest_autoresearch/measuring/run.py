"""One run: starts it, holds the clock, streams its progress, ends its whole process tree."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import math
import os
import re
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO

from pytest_autoresearch.measuring.measurement import Measurement
from pytest_autoresearch.oneline import one_line

# What a run inherits: enough to find its interpreter, its accelerator and its cache, and no key.
INHERITED = re.compile(
    r"PATH|HOME|USER|LANG|LC_.*|TZ|TMPDIR|LD_LIBRARY_PATH|XDG_CACHE_HOME|AUTORESEARCH_CACHE"
    r"|CUDA_.*|NVIDIA_.*|ROCR_.*|HIP_.*|HF_HOME|HF_HUB_OFFLINE|OMP_.*|MKL_.*"
)
TAIL_LINES = 20  # of the output, quoted when a run crashes
LONGEST_LINE = 1 << 16  # bytes; a run may print anything
LARGEST_LOG = 8 << 20  # bytes; what comes after is read and dropped
EXIT_GRACE = 5.0  # seconds to exit after closing the output
LEFTOVER = 1.0  # seconds to read what is left in the pipe once the script has ended

OnLine = Callable[[str], None]


class RunFailed(Exception):
    """A run gave no score; *tail* is the end of its output."""

    def __init__(self, reason: str, tail: Iterable[str]) -> None:
        super().__init__(one_line(reason, 300))
        self.tail = [one_line(line) for line in tail]


class Crashed(RunFailed):
    """The script failed, or printed no usable score."""


class TimedOut(RunFailed):
    """The script was still running at its limit."""


@dataclasses.dataclass(frozen=True, slots=True)
class Conditions:
    """What all runs of a campaign have in common."""

    metric: str
    time_budget: float | None
    """Seconds of training; None leaves it to the script."""

    def environment(self, seed: int) -> dict[str, str]:
        """Return the environment of a run, built from nothing but the names in ``INHERITED``."""
        environment = {key: value for key, value in os.environ.items() if INHERITED.fullmatch(key)}
        return environment | self.told(seed)

    def told(self, seed: int) -> dict[str, str]:
        """Return what the harness tells a script through its environment."""
        told = {"AUTORESEARCH_SEED": str(seed), "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        if self.time_budget is not None:
            told["AUTORESEARCH_TIME_BUDGET"] = f"{self.time_budget:g}"
        return told


def measure(
    files: Mapping[str, str],
    script: str,
    conditions: Conditions,
    *,
    seed: int,
    limit: float,
    log: Path | None = None,
    on_line: OnLine = lambda _line: None,
) -> Measurement:
    """Run *script* once, in a fresh directory that holds *files* and nothing else.

    Args:
        files: name and text of each file.
        script: the name of the file to run.
        conditions: what the runs of a campaign share.
        seed: of everything random in the run.
        limit: seconds of wall time after which the whole process tree is killed.
        log: where the output is written as well.
        on_line: called with each line of output; a carriage return ends a line too.

    Raises:
        TimedOut: the limit was reached.
        Crashed: the script failed, or printed no finite score.
    """
    started = time.monotonic()
    with fresh_directory(files) as folder:
        output = execute(script, folder, conditions.environment(seed), limit=limit, log=log, on_line=on_line)
    return _measurement(output, conditions.metric, seed, time.monotonic() - started)


@contextlib.contextmanager
def fresh_directory(files: Mapping[str, str]) -> Iterator[Path]:
    """Yield a new directory that holds *files*, and remove it afterwards."""
    with tempfile.TemporaryDirectory(prefix="autoresearch-", ignore_cleanup_errors=True) as name:
        folder = Path(name).resolve()
        for path, text in files.items():
            (folder / path).write_bytes(text.encode())
        yield folder


@dataclasses.dataclass(frozen=True, slots=True)
class Output:
    """What a finished process printed."""

    values: Mapping[str, str]
    """Its ``key: value`` lines, those of the summary if there is one; the last one of a name counts."""
    tail: list[str]


def execute(
    script: str,
    folder: Path,
    environment: Mapping[str, str],
    *,
    limit: float | None,
    log: Path | None = None,
    on_line: OnLine = lambda _line: None,
) -> Output:
    """Run a Python script in *folder* to its end and return what it printed.

    Raises:
        TimedOut: it ran longer than *limit* seconds.
        Crashed: its exit code was not 0.
    """
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    values: dict[str, str] = {}
    deadline = math.inf if limit is None else time.monotonic() + limit
    process = subprocess.Popen(
        [sys.executable, script],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C reaches pytest alone, which then ends the run
        preexec_fn=_die_with_parent,
    )
    try:
        for line in _lines(process, deadline, log):
            if line.strip():
                tail.append(line)
            if line.strip() == "---":
                values.clear()  # what comes now is the summary
            elif match := re.fullmatch(r"(\w+):\s+(\S.*?)\s*", line):
                values[match[1]] = match[2]
            on_line(line)
        code = process.wait(EXIT_GRACE)
    except subprocess.TimeoutExpired:
        reason = f"still running {EXIT_GRACE:.0f} s after it closed its output"
        raise TimedOut(reason, tail) from None
    except TimeoutError:
        reason = f"still running after {limit:.0f} s, its limit"
        raise TimedOut(reason, tail) from None
    finally:
        end_tree(process)
    if code:
        raise Crashed(_exit_reason(code, tail), tail)
    return Output(values, list(tail))


def end_tree(process: subprocess.Popen[bytes]) -> None:
    """Kill *process*, its session, and descendants that left it for a session of their own."""
    import psutil

    victims = []
    with contextlib.suppress(psutil.NoSuchProcess):
        victims = psutil.Process(process.pid).children(recursive=True)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    for victim in victims:
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _die_with_parent() -> None:
    # A pytest that is killed outright ends its run on Linux, where the kernel can be asked to.
    if _PRCTL is not None:
        _PRCTL(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


# Looked up before the fork: between fork and exec there is no safe place to load a library.
_PRCTL = getattr(ctypes.CDLL(None), "prctl", None) if sys.platform == "linux" else None


def _lines(process: subprocess.Popen[bytes], deadline: float, log: Path | None) -> Iterator[str]:
    """Yield the lines of the output as they come; raise TimeoutError past *deadline*."""
    assert process.stdout is not None
    descriptor = process.stdout.fileno()
    pending = b""
    with selectors.DefaultSelector() as selector, _log(log) as record:
        selector.register(descriptor, selectors.EVENT_READ)
        gone = math.inf  # when the script ended; a child of its may still hold the pipe, and write
        while (now := time.monotonic()) < gone + LEFTOVER:
            if now >= deadline:
                raise TimeoutError
            if gone == math.inf and process.poll() is not None:
                gone = now
            if not selector.select(min(deadline - now, 0.5)):
                if gone < math.inf:
                    break
                continue
            chunk = os.read(descriptor, LONGEST_LINE)
            if not chunk:
                break
            if record is not None and record.tell() < LARGEST_LOG:
                record.write(chunk)
            *complete, pending = re.split(rb"\r\n|[\r\n]", pending + chunk)
            pending = pending[-LONGEST_LINE:]
            for line in complete:
                yield line.decode(errors="replace")
    if pending:
        yield pending.decode(errors="replace")


@contextlib.contextmanager
def _log(path: Path | None) -> Iterator[IO[bytes] | None]:
    if path is None:
        yield None
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as record:
        yield record


def _exit_reason(code: int, tail: deque[str]) -> str:
    # Not every signal has a name of its own: real-time ones are numbers.
    names = {number.value: number.name for number in signal.Signals}
    how = f"killed by {names.get(-code, f'signal {-code}')}" if code < 0 else f"exit code {code}"
    return f"{how}: {tail[-1].strip()}" if tail else how


def _measurement(output: Output, metric: str, seed: int, wall_seconds: float) -> Measurement:
    text = output.values.get(metric)
    if text is None:
        raise Crashed(f"no line '{metric}: NUMBER' in its output", output.tail)
    score = _number(text)
    if score is None:
        raise Crashed(f"{metric} is {text[:40]}", output.tail)
    tokens = _number(output.values.get("total_tokens_M"))
    steps = _number(output.values.get("num_steps"))
    return Measurement(
        score=score,
        seed=seed,
        wall_seconds=round(wall_seconds, 1),
        training_seconds=_number(output.values.get("training_seconds")),
        memory_mb=_number(output.values.get("peak_vram_mb")),
        tokens=None if tokens is None else tokens * 1e6,
        steps=None if steps is None else int(steps),
    )


def _number(text: str | None) -> float | None:
    """Return *text* as a finite number, None if it is not one."""
    try:
        number = math.nan if text is None else float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
