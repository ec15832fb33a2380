"""A test that makes runs of the experiment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_autoresearch.errors import AssertionFailure, AutoresearchError
from pytest_autoresearch.executors.base import RunFailure, RunOutcome, RunRequest
from pytest_autoresearch.judging.rules import Always
from pytest_autoresearch.loop.watch import Watch
from pytest_autoresearch.plugin.experiment import EXPERIMENT, Experiment
from pytest_autoresearch.plugin.progress import LiveLine
from pytest_autoresearch.records.measurement import Measurement

if TYPE_CHECKING:
    from _pytest._code.code import ExceptionInfo
    from _pytest._io import TerminalWriter


class ExperimentItem(pytest.Item):
    """A test that makes runs of the experiment, and shows what they print."""

    autoresearch_outcome: tuple[str, str] | None = None
    """A word, ``passed`` or a verdict, and its reason: what the item's report says."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.add_marker("experiment")
        self.limit: float | None = None  # seconds of wall time for a run; pytest-timeout's, if it has one

    @property
    def experiment(self) -> Experiment:
        """The experiment of this session."""
        return self.session.stash[EXPERIMENT]

    def outcome(self, request: RunRequest) -> RunOutcome:
        """Make a run and return what became of it; an interruption ends it."""
        with LiveLine(self.config, self.name) as live:
            watch = Watch(self.experiment.executor, lambda _name, line: live.quote(line))
            outcome = watch.measure(self.name, request)
        if isinstance(outcome.result, Measurement):
            self.note_kind(outcome.result)
        return outcome

    def note_kind(self, run: Measurement) -> None:
        """Add the trust and the sandbox of a run to the item's reports, once."""
        kind = [("trust", run.trust), ("sandbox", run.sandbox)]
        self.user_properties += [note for note in kind if note not in self.user_properties]

    def request(self, files: Mapping[str, str], seed: int, **conditions: Any) -> RunRequest:
        """Return the request for a run whose sealed score is probed in every row."""
        return RunRequest("candidate", files, seed, Always(answer=True), limit=self.limit, **conditions)

    def measure(self, files: Mapping[str, str], seed: int, **conditions: Any) -> Measurement:
        """Make such a run and return its measurement.

        Raises:
            AssertionFailure: it gave no score.
        """
        result = self.outcome(self.request(files, seed, **conditions)).result
        if isinstance(result, RunFailure):
            raise AssertionFailure(result.reason, *result.tail)
        return result

    def reportinfo(self) -> tuple[Path, int, str]:
        """Return where the item is; the line must be a number for pytest's skip marks."""
        return self.path, 0, self.name

    def note(self, **properties: object) -> None:
        """Add properties to the item's reports, for JUnit and other plugins."""
        self.user_properties += properties.items()

    def repr_failure(self, excinfo: ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Return what :meth:`explain` says, else pytest's traceback."""
        return self.explain(excinfo.value) or super().repr_failure(excinfo, style)

    def explain(self, error: BaseException) -> Compact | None:
        """Return a few lines instead of a traceback, where the reason is not in this program."""
        if isinstance(error, AssertionFailure):
            return Compact(str(error), error.lines)
        return Compact(str(error), ()) if isinstance(error, AutoresearchError) else None


class Compact:
    """A failure in a few lines: pytest asks a representation for no more than these three."""

    def __init__(self, headline: str, lines: Iterable[str]) -> None:
        self.reprcrash = SimpleNamespace(message=headline)
        self._lines = [f"  {line}" for line in lines]

    def __str__(self) -> str:
        return "\n".join([self.reprcrash.message, *self._lines])

    def toterminal(self, writer: TerminalWriter) -> None:
        """Write the headline in red, and the lines below it."""
        writer.line(self.reprcrash.message, red=True, bold=True)
        for line in self._lines:
            writer.line(line)
