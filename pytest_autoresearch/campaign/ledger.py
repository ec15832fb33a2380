"""What was tried."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from pytest_autoresearch.records.trial import Trial
from pytest_autoresearch.system.files import writing


class Ledger:
    """The entries of one campaign, and their file, which can be rebuilt from the trials' refs."""

    def __init__(self, path: Path, entries: Sequence[Trial]) -> None:
        self.path = path
        self.entries = list(entries)
        with writing(path):
            there = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
            lines = "".join(map(_line, self.entries))
            self.was_wrong = there not in {"", lines}
            """Whether the file said something else than the entries."""
            if there != lines or not path.exists():
                self._rebuild(lines)

    def _rebuild(self, lines: str) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_suffix(".new")
        fresh.write_text(lines, encoding="utf-8")
        fresh.replace(self.path)

    def write(self, entry: Trial) -> None:
        """Write *entry*, the last one, to the file; on return it is on the disk."""
        with writing(self.path):
            if not self.path.exists():  # git clean -x, while a run trained
                self._rebuild("".join(map(_line, self.entries)))
                return
            self._append(entry)

    def _append(self, entry: Trial) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line(entry))
            file.flush()
            os.fsync(file.fileno())


def _line(entry: Trial) -> str:
    return json.dumps(entry.to_json()) + "\n"
