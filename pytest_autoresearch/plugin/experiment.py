"""The experiment of a session: its committed files, this machine, and the executor of its runs."""

from __future__ import annotations

import dataclasses

import pytest

from pytest_autoresearch.campaign import baseline
from pytest_autoresearch.campaign.baseline import Baseline
from pytest_autoresearch.campaign.git import Repository
from pytest_autoresearch.executors.base import Executor
from pytest_autoresearch.executors.local import LocalExecutor
from pytest_autoresearch.records.spec import ExperimentSpec
from pytest_autoresearch.runs.compiler_cache import CacheUse
from pytest_autoresearch.runs.config import RunConfig
from pytest_autoresearch.runs.output import OnLine
from pytest_autoresearch.runs.site import PREPARE, Site
from pytest_autoresearch.settings import Settings
from pytest_autoresearch.source import validation


@dataclasses.dataclass(slots=True)
class Experiment:
    """An experiment that is open: runs can be made."""

    settings: Settings
    repository: Repository
    site: Site
    fixed: str
    """The text of the committed ``prepare.py``, empty if there is none."""
    executor: Executor
    first_cache_use: CacheUse = "empty"
    """How the runs of a baseline use compilers' caches: those of a campaign's start fill them."""

    @classmethod
    def open(cls, settings: Settings, on_line: OnLine, revision: str = "HEAD") -> Experiment:
        """Open the experiment; ``prepare.py`` of *revision* prepares the data and describes the machine.

        Raises:
            RepositoryError: there is no repository, or something is not committed.
            RunFailed: ``prepare.py`` failed.
        """
        spec, budget = settings.spec, settings.time_budget
        repository, fixed = Repository(spec), {}
        for name in spec.fixed:
            if (spec.folder / name).exists():
                repository.require(name, revision)
            if text := repository.committed(name, revision):
                fixed[name] = text
        enforcer = settings.enforcer
        site = Site.of(fixed, spec.direction, time_budget=budget, enforcer=enforcer, on_line=on_line)
        config = RunConfig(spec, site, fixed, budget, enforcer, settings.memory_limit)
        return cls(settings, repository, site, fixed.get(PREPARE, ""), LocalExecutor(config))

    @property
    def spec(self) -> ExperimentSpec:
        """What the experiment is."""
        return self.settings.spec

    @property
    def program(self) -> str:
        """The text of the committed ``program.md``, empty if there is none."""
        return self.repository.committed(self.spec.program) or ""

    @property
    def files(self) -> dict[str, str]:
        """Path and text of each editable file, as it is committed."""
        return self.repository.files_at("HEAD")

    def working_files(self) -> dict[str, str]:
        """Return path and text of each editable file in the working tree.

        Raises:
            ProposalRefused: one of them cannot be read.
        """
        paths = {*self.files, self.spec.script}
        return {path: validation.read(self.spec.folder / path) for path in sorted(paths)}

    def baseline(self) -> Baseline | None:
        """Return the baseline of this platform and metric from the working tree's ``baseline.json``.

        Raises:
            BaselineFormatError: the file is torn, or of another version.
        """
        path = self.spec.folder / self.spec.baseline
        stored = baseline.read(path.read_text(encoding="utf-8") if path.exists() else None)
        return baseline.find(stored, self.site.platform, self.spec.metric)


EXPERIMENT = pytest.StashKey[Experiment]()
