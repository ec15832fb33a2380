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
    fixed_files: dict[str, str]
    """Path and text of each fixed file, as it is committed."""
    executor: Executor
    is_at_start: bool = False
    """Whether the committed version is the one that the campaign started with."""

    @classmethod
    def open(cls, settings: Settings, on_line: OnLine, revision: str = "HEAD") -> Experiment:
        """Open the experiment; ``prepare.py`` of *revision* prepares the data and describes the machine.

        Raises:
            RepositoryError: there is no repository, or something is not committed.
            RunFailed: ``prepare.py`` failed.
        """
        spec, runs = settings.spec, settings.runs
        repository, fixed = Repository.of(spec.path), {}
        for name in spec.fixed:
            path = repository.path_of(spec.folder / name)
            if (spec.folder / name).exists():
                repository.require(path, revision)
            if text := repository.committed(path, revision):
                fixed[name] = text
        site = Site.of(
            fixed, spec.direction, time_budget=runs.time_budget, enforcer=runs.enforcer, on_line=on_line
        )
        config = RunConfig(spec, site, fixed, runs.time_budget, runs.enforcer, runs.memory_limit)
        return cls(settings, repository, site, fixed, LocalExecutor(config))

    @property
    def spec(self) -> ExperimentSpec:
        """What the experiment is."""
        return self.settings.spec

    @property
    def fixed(self) -> str:
        """The text of the committed ``prepare.py``, empty if there is none."""
        return self.fixed_files.get(PREPARE, "")

    @property
    def program(self) -> str:
        """The text of the committed ``program.md``, empty if there is none."""
        return self.repository.committed(self.repository.path_of(self.spec.folder / self.spec.program)) or ""

    @property
    def files(self) -> dict[str, str]:
        """Path and text of each editable file, as it is committed."""
        return self.repository.files_at("HEAD", self.spec)

    @property
    def tree(self) -> str:
        """The git tree of the committed editable files."""
        return self.repository.tree_of(self.files)

    @property
    def first_cache_use(self) -> CacheUse:
        """How the runs of a baseline use compilers' caches: those of a campaign's start fill them."""
        return "fill" if self.is_at_start else "empty"

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

    def close(self) -> None:
        """End every run, and release the scorer."""
        self.executor.close()


EXPERIMENT = pytest.StashKey[Experiment]()
