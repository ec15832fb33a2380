"""A command that is run: each of its lines with the second in which it came, and the figures in them."""

from __future__ import annotations

import json
import os
import re
import signal
import statistics
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FOUND = "FOUND "  # begins the line on which one of our own scripts tells what it has found, as JSON
SETTLED = 12  # steps after which the speed of a training script counts: upstream leaves out its first 11

Found = dict[str, Any]
"""What a stage has found; or its one key is ``failed`` or ``not run``, with the reason."""


class Command:
    """A command that has ended, or was killed at its limit."""

    def __init__(
        self,
        words: Sequence[str | Path],
        folder: Path,
        environment: Mapping[str, str],
        limit: float,
        log: Path,
    ) -> None:
        """Run *words* in *folder* to their end, *limit* seconds at most; append the output to *log*."""
        self.lines: list[tuple[float, str]] = []
        began = time.monotonic()
        with (
            log.open("a") as record,
            subprocess.Popen(
                list(map(str, words)),
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,  # a carriage return then ends a line, too
                errors="replace",
                start_new_session=True,
            ) as process,
        ):
            print("$", *words, file=record, flush=True)
            killer = threading.Timer(limit, os.killpg, (process.pid, signal.SIGKILL))
            killer.start()
            assert process.stdout is not None
            for line in process.stdout:
                if line.strip():
                    self.lines.append((time.monotonic() - began, line.rstrip()))
                    print(f"{self.lines[-1][0]:7.2f} {self.lines[-1][1]}", file=record, flush=True)
            code = process.wait()
            killer.cancel()
        self.code = code
        self.seconds = round(time.monotonic() - began, 1)

    @property
    def text(self) -> list[str]:
        """The lines without their times."""
        return [line for _, line in self.lines]

    def failure(self) -> Found:
        """Return what a stage has found if this command was all of it, and failed."""
        return {"failed": f"exit code {self.code} after {self.seconds} s", "end": self.text[-8:]}

    def found(self) -> Found:
        """Return what one of our own scripts tells, on the last line that begins with :data:`FOUND`."""
        told = [line.removeprefix(FOUND) for line in self.text if line.startswith(FOUND)]
        figures: Found = json.loads(told[-1]) if told else {}
        return figures if told and not self.code else figures | self.failure()

    def block(self) -> Found:
        """Return the ``key: value`` lines behind the last ``---``, numbers as such."""
        after = max((at for at, line in enumerate(self.text) if line == "---"), default=len(self.lines))
        pairs = [re.fullmatch(r"(\w+): +(.+)", line) for line in self.text[after:]]
        return {pair[1]: _number(pair[2]) for pair in pairs if pair}

    def training(self) -> Found:
        """Return the figures of a training script: the block at its end, its speed, and its first step.

        A line of progress is complete when the next one begins, so the first step is seen one step late.
        """
        progress = [
            (at, int(step[1]), float(step[2].replace(",", "")))
            for at, line in self.lines
            if (step := re.search(r"step (\d+) .*tok/sec: ([\d,]+)", line))
        ]
        if not progress:
            return self.failure()
        speeds = [speed for _, step, speed in progress if step > SETTLED]
        figures = {
            "first_step_s": round(progress[0][0], 1),
            "tokens_per_second": round(statistics.harmonic_mean(speeds)) if speeds else None,
            "steps_timed": len(speeds),
            "wall_s": self.seconds,
        }
        return figures | self.block() | (self.failure() if self.code else {})


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
