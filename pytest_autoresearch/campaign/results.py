"""``results.tsv``, with upstream's five columns, and the closing summary."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_autoresearch.records.measurement import Measurement, format_exact, mean_score
from pytest_autoresearch.system.files import writing
from pytest_autoresearch.system.text import single_line

if TYPE_CHECKING:
    from pytest_autoresearch.records.trial import Trial, Verdict

# Upstream knows three outcomes, and tools that read its file know no others.
STATUS: dict[Verdict, str] = {
    "kept": "keep",
    "discarded": "discard",
    "crashed": "crash",
    "out of memory": "crash",
    "timeout": "crash",
    "refused": "crash",
}


class Results:
    """The file, one row a trial: commit, score, memory in GB, status, description."""

    def __init__(self, path: Path, metric: str, rows: Iterable[str]) -> None:
        self._path = path
        self._rows = [f"commit\t{metric}\tmemory_gb\tstatus\tdescription\n", *rows]
        with writing(path):
            there = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
            opening, first = ("".join(lines[1:2])[:7] for lines in (self._rows, there.splitlines()))
            of_this = opening == first
            self.was_wrong = of_this and there != "".join(self._rows)
            """Whether the file was of this campaign, and said something else."""
            self._rebuild()

    def _rebuild(self) -> None:
        fresh = self._path.with_suffix(".tsv.new")
        fresh.write_text("".join(self._rows), encoding="utf-8")
        fresh.replace(self._path)

    def add(self, row: str) -> None:
        """Append *row*."""
        self._rows.append(row)
        with writing(self._path):
            if not self._path.exists():  # somebody has tidied up
                self._rebuild()
                return
            self._append(row)

    def _append(self, row: str) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(row)


def trial_row(entry: Trial) -> str:
    """Return a trial's row; one without a score has zeros, as upstream."""
    judged = entry.measurements if entry.verdict in ("kept", "discarded") else ()
    return _row(entry.commit, judged, STATUS[entry.verdict], entry.description)


def baseline_row(commit: str, measurements: Sequence[Measurement]) -> str:
    """Return the first row of a campaign."""
    return _row(commit, measurements, "keep", "baseline")


def _row(commit: str, measurements: Sequence[Measurement], status: str, description: str) -> str:
    score = mean_score(measurements) if measurements else 0.0
    memory = max((run.memory_mb or 0.0 for run in measurements), default=0.0) / 1024
    return f"{commit[:7]}\t{format_exact(score)}\t{memory:.1f}\t{status}\t{single_line(description)}\n"
