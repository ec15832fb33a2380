"""What a user has asked for in one session."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_autoresearch.agents.agent import AgentOptions
    from pytest_autoresearch.judging.judge import JudgePolicy
    from pytest_autoresearch.records.spec import ExperimentSpec
    from pytest_autoresearch.sandbox.policy import Enforcer


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that options and ini values say. A limit that is None is none."""

    spec: ExperimentSpec
    agents: AgentOptions
    agent_names: tuple[str, ...]
    """The agents in their order; none stands for the project's own hook or, without one, the tuner."""
    asked: frozenset[str]
    """Which of the items ``baseline``, ``candidate`` and ``replay`` the command line asks for."""
    research: bool
    """Whether ``--autoresearch`` was given."""
    replay: tuple[str, int] | None
    """Tag and number of a trial to measure again."""
    planning: bool
    """Whether pytest only shows what it would run."""
    tag: str | None
    """The campaign; None takes the branch's, or today's."""
    keep_logs: int | None
    """The number of trials, the latest, whose output is kept; None keeps all."""
    time_budget: float | None
    """Seconds of training for each run; None leaves it to ``prepare.py``."""
    enforcer: Enforcer
    """The sandbox of runs."""
    memory_limit: float | None
    """MiB beyond which a run is ended."""
    memory_soft_limit: float | None
    """MiB that a run should stay below; None takes a multiple of the start's memory."""
    confidence: float | None
    """The probability of an improvement that a keep requires; None takes the judge's default."""
    code_size_price: float
    """What a token of Python has to gain, as a share of the score."""
    prune: bool
    """Whether runs that cannot win any more are ended early."""
    trials: int | None
    """Trials to run."""
    hours: float | None
    """Hours during which trials are started."""
    give_up_after: int | None
    """Trials in a row without a score that end the loop."""

    @property
    def policy(self) -> JudgePolicy:
        """How proposals are judged."""
        from pytest_autoresearch.judging.judge import CONFIDENCE, JudgePolicy

        confidence = CONFIDENCE if self.confidence is None else self.confidence
        return JudgePolicy(self.spec.direction, confidence, self.code_size_price)

    def is_script(self, path: Path) -> bool:
        """Tell whether *path* is the experiment's script, by whatever links it is reached."""
        script = self.spec.path
        return path.name == script.name and path.resolve() == script.resolve()
