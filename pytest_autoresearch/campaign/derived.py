"""Files whose lines follow from the refs, and can be rebuilt from them at any time."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from pytest_autoresearch.records.measurement import Measurement, format_exact, mean_score
from pytest_autoresearch.records.trial import Trial
from pytest_autoresearch.system.files import writing
from pytest_autoresearch.text import single_line

# Upstream knows three outcomes, and tools that read its file know no others: all the rest is a crash.
STATUS = {"kept": "keep", "discarded": "discard"}


class DerivedFile:
    """A text file that is brought to its lines when it is opened, and grows by one line at a time."""

    def __init__(self, path: Path, lines: Iterable[str]) -> None:
        """Write the file anew unless it holds exactly *lines*, each with its newline."""
        self.path = path
        self._lines = list(lines)
        with writing(path):
            there = path.read_text(encoding="utf-8", errors="replace") if path.exists() else None
            right = there == "".join(self._lines)
            self.replaced = "" if right else there or ""
            """The text that was there in place of the lines; empty if there was none."""
            if not right:
                self._rebuild()

    def append(self, line: str) -> None:
        """Add a line; on return it is on the disk."""
        self._lines.append(line)
        with writing(self.path):
            if not self.path.exists():  # git clean -x, while a run trained
                self._rebuild()
                return
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())

    def _rebuild(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_name(f"{self.path.name}.new")
        fresh.write_text("".join(self._lines), encoding="utf-8")
        fresh.replace(self.path)


def ledger_line(trial: Trial) -> str:
    """Return the line of a trial in ``ledger.jsonl``."""
    return json.dumps(trial.to_json()) + "\n"


def results_header(metric: str) -> str:
    """Return the first line of ``results.tsv``: upstream's columns."""
    return f"commit\t{metric}\tmemory_gb\tstatus\tdescription\n"


def baseline_row(commit: str, measurements: Sequence[Measurement]) -> str:
    """Return the second line of ``results.tsv``: the campaign's header."""
    return _row(commit, measurements, "keep", "baseline")


def trial_row(trial: Trial) -> str:
    """Return the line of a trial in ``results.tsv``; one without a score has zeros, as upstream."""
    judged = trial.measurements if trial.is_scored else ()
    return _row(trial.commit, judged, STATUS.get(trial.verdict, "crash"), trial.description)


def first_commit(results: str) -> str:
    """Return the abbreviated commit in the second line of a ``results.tsv``; empty if there is none."""
    return "".join(results.splitlines()[1:2]).partition("\t")[0]


def _row(commit: str, measurements: Sequence[Measurement], status: str, description: str) -> str:
    score = mean_score(measurements) if measurements else 0.0
    memory = max((run.memory_mb or 0.0 for run in measurements), default=0.0) / 1024
    return f"{commit[:7]}\t{format_exact(score)}\t{memory:.1f}\t{status}\t{single_line(description)}\n"
