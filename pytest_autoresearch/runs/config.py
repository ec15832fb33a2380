"""What all runs of an experiment on one machine have in common."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path

from pytest_autoresearch.records.spec import ExperimentSpec
from pytest_autoresearch.runs import compiler_cache
from pytest_autoresearch.runs.environment import inherited, told
from pytest_autoresearch.runs.site import Site
from pytest_autoresearch.sandbox.policy import Enforcer

ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")  # today's name, and the one before
LIMIT_WITHOUT_BUDGET = 600.0  # seconds, for a script that names no budget: upstream's limit


@dataclasses.dataclass(frozen=True, slots=True)
class RunConfig:
    """Everything about a run that no proposal changes. Plain data: it can be pickled."""

    spec: ExperimentSpec
    site: Site = dataclasses.field(default_factory=Site)
    fixed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Path and text of each fixed file, as committed."""
    time_budget: float | None = None
    """Seconds of training that the user asks for; None leaves it to the script."""
    enforcer: Enforcer = "none"
    memory_limit: float | None = None
    """MiB that all processes of a run may use together; None is no limit."""
    variables: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Variables of the environment that take the place of inherited ones."""

    @property
    def command(self) -> list[str]:
        """The command line of a run."""
        program, *arguments = self.spec.command
        return [sys.executable if program == "python" else program, *arguments]

    @property
    def wall_seconds(self) -> float:
        """Seconds of wall time after which a run is ended, to which the scorer's are added."""
        if self.site.sealed is not None:
            return self.site.sealed.wall_seconds
        budget = self.site.platform.get("time_budget")
        # Twice the budget, as upstream, and a minute to start up and to evaluate.
        return 2 * float(budget) + 60 if budget else LIMIT_WITHOUT_BUDGET

    def scorer_environment(self) -> dict[str, str]:
        """Return the environment of the scorer."""
        return inherited() | dict(self.variables) | told(0, self.time_budget, self.site.device)

    def environment(self, seed: int, folder: Path) -> dict[str, str]:
        """Return the whole environment of a run in *folder*."""
        environment = inherited() | dict(self.variables) | told(seed, self.time_budget, self.site.device)
        environment |= compiler_cache.variables(folder)
        if self.site.is_on_cuda and not environment.keys() & set(ALLOCATOR):
            environment[ALLOCATOR[0]] = "expandable_segments:True"  # as upstream: less memory is lost to gaps
        if self.enforcer == "none":
            return environment
        # In a sandbox there is no home: libraries write to a folder that is thrown away.
        caches = environment.pop("XDG_CACHE_HOME", None) or f"{Path.home()}/.cache"
        environment.setdefault("HF_HOME", f"{caches}/huggingface")
        environment |= {"HOME": str(folder), "TMPDIR": str(folder), "HF_HUB_OFFLINE": "1"}
        # A compiler starts a process for each core. They share memory, which Landlock denies; on a CPU their
        # time would count.
        if self.enforcer == "landlock" or not self.site.is_on_cuda:
            environment["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
        return environment
