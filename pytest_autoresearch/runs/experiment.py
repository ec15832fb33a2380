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

from pytest_autoresearch.campaign import baseline
from pytest_autoresearch.campaign.git import Repository
from pytest_autoresearch.errors import RepositoryError
from pytest_autoresearch.records.measurement import Measurement, Trust
from pytest_autoresearch.records.overheads import Overheads
from pytest_autoresearch.runs import data
from pytest_autoresearch.runs.clock import kind_of
from pytest_autoresearch.runs.copies import copies
from pytest_autoresearch.runs.data import Data
from pytest_autoresearch.runs.output import OnLine
from pytest_autoresearch.runs.run import RunConfig, execute, fresh_directory, inherited, measure
from pytest_autoresearch.runs.session import ProbeAllRows, SealedLimits
from pytest_autoresearch.sandbox.launch import Policy
from pytest_autoresearch.scoring.client import Scorer, answering
from pytest_autoresearch.system import temporary

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
    """Machine, software, data, budget and trust: what a score is only comparable within."""
    conditions: RunConfig
    """Of its runs."""
    no_gpu: str = ""
    """Why torch uses no GPU, as ``prepare.py`` says."""

    @classmethod
    def of(cls, settings: Settings, on_line: OnLine, revision: str = "HEAD") -> Experiment:
        """Open the experiment and let its ``prepare.py``, of *revision*, prepare and describe itself.

        Raises:
            RepositoryError: there is no repository, or something is not committed.
            measuring.run.Crashed: ``prepare.py`` failed.
        """
        repository = Repository.of(settings.script)
        if settings.script.with_name(FIXED).exists():
            repository.require(repository.beside(FIXED), revision)
        fixed = repository.committed(repository.beside(FIXED), revision) or ""
        described = _describe(fixed, settings, on_line) if fixed else {}
        try:
            files = Data.described(described)
        except ValueError as error:
            raise RepositoryError(f"{FIXED}: {error}") from error
        conditions = _conditions(settings, fixed, described, files)
        for key in (data.SHARED, data.TRAINING, data.VALIDATION):
            described.pop(key, None)
        no_gpu = described.pop("no_gpu", "")
        if "device" not in described:
            described |= {"machine": platform.machine(), "cores": str(os.cpu_count())}
        described["trust"] = "reported" if conditions.terms is None else "sealed"
        return cls(settings, repository, fixed, described, conditions, no_gpu)

    @property
    def trust(self) -> Trust:
        """Who computes the score: the harness, or the script."""
        return "reported" if self.conditions.terms is None else "sealed"

    def start_scorer(self) -> None:
        """Let the scorer get ready, if there is one, while the first run trains."""
        if self.conditions.terms is not None:
            self.conditions.terms.scorer.start()

    def close(self) -> None:
        """End the scorer, and let go of what compilers have kept."""
        self.conditions.caches.close()
        if self.conditions.terms is not None:
            self.conditions.terms.scorer.close()

    @property
    def device(self) -> str:
        """The column of ``per_device`` in use: ``cuda``, or ``cpu``, which Apple's GPUs take too."""
        device = self.platform.get("device", "cpu").partition(":")[0]
        return "cpu" if device == "mps" else device

    @property
    def limit(self) -> float:
        """Seconds of wall time after which a run is killed, unless pytest-timeout says otherwise."""
        if self.conditions.terms is not None:
            return self.conditions.terms.limit
        budget = self.platform.get("time_budget")
        # Twice the budget, as upstream, and a minute to start up and to evaluate.
        return 2 * float(budget) + 60 if budget else LIMIT_WITHOUT_BUDGET

    def committed(self, name: str) -> str:
        """Return the text of a file beside the script as it is committed, empty if there is none."""
        return self.repository.committed(self.repository.beside(name)) or ""

    def script(self) -> str:
        """Return the text of the committed script."""
        return self.committed(self.settings.script.name)

    def records(self) -> list[baseline.Baseline]:
        """Return what the ``baseline.json`` of the working tree holds.

        Raises:
            BaselineFormatError: it is torn, or of another version.
        """
        path = self.settings.script.with_name(RECORDS)
        return baseline.read(path.read_text(encoding="utf-8") if path.exists() else None)

    def record(self) -> baseline.Baseline | None:
        """Return the baseline of this platform and metric."""
        return baseline.find(self.records(), self.platform, self.settings.metric)

    def measure(
        self,
        source: str,
        *,
        seed: int,
        limit: float,
        thorough: ProbeAllRows,
        log: Path | None,
        on_line: OnLine,
        claimed: bool = False,
        needs: Overheads | None = None,
        cold: bool = False,
    ) -> Measurement:
        """Run *source* once beside the committed ``prepare.py``, as :func:`measuring.run.measure` does."""
        name = self.settings.script.name
        files = {name: source} | ({FIXED: self.fixed} if self.fixed else {})
        return measure(
            files,
            name,
            self.conditions,
            seed=seed,
            limit=limit,
            log=log,
            on_line=on_line,
            thorough=thorough,
            claimed=claimed,
            needs=needs,
            cold=cold,
        )


KEY = pytest.StashKey[Experiment]()


def _describe(fixed: str, settings: Settings, on_line: OnLine) -> dict[str, str]:
    """Run ``prepare.py`` by itself and return the ``key: value`` block that it ends with."""
    told = RunConfig(settings.metric, settings.time_budget).told(seed=0)
    # Unlike a run it may reach the network and use the user's own access to the data.
    environment = {key: value for key, value in os.environ.items() if not re.match("COV(ERAGE)?_", key)}
    with fresh_directory({FIXED: fixed}) as folder:
        return dict(execute(FIXED, folder, environment | told, on_line).values)


def _conditions(settings: Settings, fixed: str, described: Mapping[str, str], files: Data) -> RunConfig:
    enforcer = settings.enforcer
    hidden, found = (*files.validation, *files.training), list[Path]()
    terms, device = None, described.get("device")
    if files.validation:
        if settings.direction == "maximize":  # what looking ahead brings is added to a score
            raise RepositoryError(f"{FIXED}: with {data.VALIDATION} a lower score has to be the better one")
        try:
            budget = float(described["time_budget"])
        except (KeyError, ValueError):
            raise RepositoryError(
                f"{FIXED}: with {data.VALIDATION} it has to name its time_budget, in seconds"
            ) from None
        told = RunConfig(settings.metric, settings.time_budget, device=device).told(seed=0)
        clock = kind_of(described.get("clock"))
        readable = (*files.validation, *files.shared)
        scorer = Scorer(fixed, readable, enforcer, inherited() | told, answering(budget, clock))
        terms = SealedLimits(files, scorer, budget, clock)
        if enforcer != "none":
            with temporary.folder("copies") as folder:
                found = copies(Policy(folder, files.shared, hidden))
    return RunConfig(
        metric=settings.metric,
        time_budget=settings.time_budget,
        enforcer=enforcer,
        memory_limit=settings.memory_limit,
        readable=files.shared,
        hidden=(*hidden, *found),
        copies=tuple(found),
        terms=terms,
        device=device,
    )
