"""A proposal until its verdict: whoever made it may mend it when it crashes."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_autoresearch.errors import StorageError
from pytest_autoresearch.records.proposal import Failure, Proposal, checked
from pytest_autoresearch.system.text import single_line

FIXES = 3  # of one trial
LAST_WORDS = 3_000  # bytes of its output that its agent is shown


class CrashRepair:
    """What is proposed now, and how it came to that."""

    def __init__(self, proposal: Proposal, log: Path) -> None:
        """Begin with what was proposed; its runs print to *log*, which may hold older ones."""
        self.proposal = proposal
        self.crashes: list[str] = []
        """Why it crashed before it was mended, each in one line."""
        self._log = log
        self._read: int | None = None  # bytes of the log that are not of the script as it is now
        self._unmended = ""

    @property
    def remark(self) -> str:
        """What a verdict's reason is to add, empty if there was no crash."""
        times = len(self.crashes)
        tries = f"mended {times} time{'s' * (times > 1)}" if times else ""
        said = ", ".join(filter(None, (tries, self._unmended)))
        return f" ({said})" if said else ""

    def begin(self) -> None:
        """Note that what is printed from now on is the script's as it is."""
        self._read = self._log.stat().st_size if self._log.exists() else 0

    def mend(self, error: Exception, ask: Callable[[Failure], object]) -> bool:
        """Ask for a proposal in place of the one that failed; tell whether there is one.

        Args:
            error: how it failed.
            ask: calls the hook. What it raises gives the trial up, and nothing else.
        """
        if len(self.crashes) == FIXES:
            return False
        try:
            answer = ask(Failure(self.proposal, str(error), self._last_words(), len(self.crashes)))
            mended = None if answer is None else checked(answer)
        except (pytest.exit.Exception, StorageError):
            raise
        except Exception as problem:  # noqa: BLE001 - it is somebody else's code
            self._unmended = single_line(f"no fix: {type(problem).__name__}: {problem}")
            return False
        if mended is not None:
            self._take(mended)
        if mended is None or mended.unanswered:
            return False
        self.crashes.append(str(error))
        return True

    def _take(self, mended: Proposal) -> None:
        """Put what was *mended* in the proposal's place; who proposed it, and what it has cost, stays."""
        old = self.proposal
        usage = old.usage + mended.usage
        if mended.unanswered:
            self._unmended = f"no fix: {mended.unanswered}"
            self.proposal = dataclasses.replace(old, usage=usage)
            return
        hypothesis = mended.hypothesis or old.hypothesis
        self.proposal = dataclasses.replace(
            mended, agent=old.agent, usage=usage, declined_by=old.declined_by, hypothesis=hypothesis
        )

    def _last_words(self) -> str:
        """Return the end of what the script as it is now has printed; nothing if it was not run."""
        if self._read is None:
            return ""
        with self._log.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(end - LAST_WORDS, self._read))
            self._read = None
            return file.read().decode(errors="replace")
