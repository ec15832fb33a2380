"""What a user has asked for in one session: frozen groups of plain values."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_autoresearch.agents.agent import AgentOptions
    from pytest_autoresearch.judging.judge import JudgePolicy
    from pytest_autoresearch.records.spec import Direction, ExperimentSpec
    from pytest_autoresearch.sandbox.policy import Enforcer


@dataclasses.dataclass(frozen=True, slots=True)
class RunSettings:
    """How runs are made."""

    time_budget: float | None = None
    """Seconds of training for each run; None leaves it to ``prepare.py``."""
    enforcer: Enforcer = "none"
    """The sandbox of runs."""
    memory_limit: float | None = None
    """MiB beyond which a run is ended; None is no limit."""


@dataclasses.dataclass(frozen=True, slots=True)
class JudgeSettings:
    """How proposals are judged."""

    confidence: float | None = None
    """The probability of an improvement that a keep requires; None takes the judge's default."""
    code_size_price: float = 0.0
    """What a token of Python has to gain, as a share of the score."""
    prune: bool = False
    """Whether runs that cannot win any more are ended early."""
    memory_soft_limit: float | None = None
    """MiB that a run should stay below; None takes a multiple of the start's memory."""

    def policy(self, direction: Direction) -> JudgePolicy:
        """Return the judge's policy for a metric of this direction."""
        from pytest_autoresearch.judging.judge import JudgePolicy

        if self.confidence is None:
            return JudgePolicy(direction, code_size_price=self.code_size_price)
        return JudgePolicy(direction, self.confidence, self.code_size_price)


@dataclasses.dataclass(frozen=True, slots=True)
class LoopSettings:
    """When the loop ends."""

    trials: int | None = None
    """Trials to run; None is no limit."""
    hours: float | None = None
    """Hours during which trials are started; None is no limit."""
    give_up_after: int | None = 10
    """Trials in a row without a score that end the loop; None is never."""


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """Everything that options and ini values say."""

    spec: ExperimentSpec
    agents: AgentOptions
    agent_names: tuple[str, ...] = ()
    """The agents in their order; none stands for the project's own hook or, without one, the tuner."""
    asked: frozenset[str] = frozenset()
    """Which of the items ``baseline``, ``candidate`` and ``replay`` the command line asks for."""
    research: bool = False
    """Whether ``--autoresearch`` was given."""
    replay: tuple[str, int] | None = None
    """Tag and number of a trial to measure again."""
    planning: bool = False
    """Whether pytest only shows what it would run."""
    tag: str | None = None
    """The campaign; None takes the branch's, or today's."""
    keep_logs: int | None = None
    """The number of trials, the latest, whose output is kept; None keeps all."""
    runs: RunSettings = RunSettings()
    judge: JudgeSettings = JudgeSettings()
    loop: LoopSettings = LoopSettings()

    def is_script(self, path: Path) -> bool:
        """Tell whether *path* is the experiment's script, by whatever links it is reached."""
        script = self.spec.path
        return path.name == script.name and path.resolve() == script.resolve()
