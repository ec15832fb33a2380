"""The experiment: the script under test, with what is fixed beside it, on this machine."""

from __future__ import annotations

import dataclasses
import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_autoresearch import baseline
from pytest_autoresearch.measuring.measurement import Measurement
from pytest_autoresearch.measuring.run import Conditions, OnLine, execute, fresh_directory, measure
from pytest_autoresearch.repository import Repository

if TYPE_CHECKING:
    from pytest_autoresearch.settings import Settings

FIXED = "prepare.py"
PROGRAM = "program.md"
RECORDS = "baseline.json"
LIMIT_WITHOUT_BUDGET = 600.0  # seconds, for a script that names no budget: upstream's limit


@dataclasses.dataclass(frozen=True, slots=True)
class Experiment:
    """A committed script, and the machine it is measured on."""

    settings: Settings
    repository: Repository
    fixed: str
    """The text of the committed ``prepare.py``, empty if there is none."""
    platform: Mapping[str, str]
    """Machine, software, data and budget: what a score is only comparable within."""

    @classmethod
    def of(cls, settings: Settings, on_line: OnLine, revision: str = "HEAD") -> Experiment:
        """Open the experiment and let its ``prepare.py``, of *revision*, prepare and describe itself.

        Raises:
            repository.Unusable: there is no repository, or something is not committed.
            measuring.run.Crashed: ``prepare.py`` failed.
        """
        repository = Repository.of(settings.script)
        if settings.script.with_name(FIXED).exists():
            repository.require(repository.beside(FIXED), revision)
        fixed = repository.committed(repository.beside(FIXED), revision) or ""
        described = _describe(fixed, settings, on_line) if fixed else {}
        if "device" not in described:
            described |= {"machine": platform.machine(), "cores": str(os.cpu_count())}
        return cls(settings, repository, fixed, described)

    @property
    def device(self) -> str:
        """The profile in use: ``cuda`` or ``cpu``."""
        return self.platform.get("device", "cpu").partition(":")[0]

    @property
    def limit(self) -> float:
        """Seconds of wall time after which a run is killed, unless pytest-timeout says otherwise."""
        budget = self.platform.get("time_budget")
        # Twice the budget, as upstream, and a minute to start up and to evaluate.
        return 2 * float(budget) + 60 if budget else LIMIT_WITHOUT_BUDGET

    def committed(self, name: str) -> str:
        """Return the text of a file beside the script as it is committed, empty if there is none."""
        return self.repository.committed(self.repository.beside(name)) or ""

    def script(self) -> str:
        """Return the text of the committed script."""
        return self.committed(self.settings.script.name)

    def records(self) -> list[baseline.Record]:
        """Return what the ``baseline.json`` of the working tree holds.

        Raises:
            baseline.Unreadable: it is torn, or of another version.
        """
        path = self.settings.script.with_name(RECORDS)
        return baseline.read(path.read_text(encoding="utf-8") if path.exists() else None)

    def record(self) -> baseline.Record | None:
        """Return the baseline of this platform and metric."""
        return baseline.find(self.records(), self.platform, self.settings.metric)

    def measure(
        self, source: str, *, seed: int, limit: float, log: Path | None, on_line: OnLine
    ) -> Measurement:
        """Run *source* once beside the committed ``prepare.py``, as :func:`measuring.run.measure` does."""
        name = self.settings.script.name
        files = {name: source} | ({FIXED: self.fixed} if self.fixed else {})
        conditions = Conditions(self.settings.metric, self.settings.time_budget)
        return measure(files, name, conditions, seed=seed, limit=limit, log=log, on_line=on_line)


KEY = pytest.StashKey[Experiment]()


def _describe(fixed: str, settings: Settings, on_line: OnLine) -> dict[str, str]:
    """Run ``prepare.py`` by itself and return the ``key: value`` block that it ends with."""
    conditions = Conditions(settings.metric, settings.time_budget)
    # Unlike a run it may reach the network and use the user's own access to the data.
    environment = os.environ | conditions.told(seed=0)
    environment = {key: value for key, value in environment.items() if not re.match("COV(ERAGE)?_", key)}
    with fresh_directory({FIXED: fixed}) as folder:
        return dict(execute(FIXED, folder, environment, limit=None, on_line=on_line).values)
