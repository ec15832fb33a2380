"""What agents are told when they are asked for a trial."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from pytest_autoresearch.agents.briefing import Briefing
from pytest_autoresearch.campaign.writer import CampaignWriter
from pytest_autoresearch.loop.stopping import Stopping
from pytest_autoresearch.records.proposal import Proposal
from pytest_autoresearch.records.spec import ExperimentSpec


@dataclasses.dataclass(frozen=True, slots=True)
class BriefingMaker:
    """Makes briefings from what is known now."""

    writer: CampaignWriter
    spec: ExperimentSpec
    program: str
    """The text of ``program.md``, empty if there is none."""
    fixed: str
    """The text of ``prepare.py``, empty if there is none."""
    device: str
    """The column of ``per_device`` in use."""
    hidden: tuple[Path, ...]
    """Files and folders that no agent may read."""
    max_cost: float | None = None
    """US dollars that all proposals may cost; None is no limit."""
    memory_soft_limit: float | None = None
    memory_limit: float | None = None

    def make(self, number: int, stopping: Stopping, running: tuple[Proposal, ...]) -> Briefing:
        """Return the briefing for trial *number*, made while the proposals in *running* are measured."""
        writer, history = self.writer, self.writer.history
        return Briefing(
            tag=history.tag,
            number=number,
            program=self.program,
            fixed=self.fixed,
            files=writer.files,
            start_files=history.header.files,
            script_name=self.spec.script,
            history=history.trials,
            score=writer.state.incumbent.mean,
            noise=writer.state.noise.std,
            metric=self.spec.metric,
            direction=self.spec.direction,
            memory_mb=history.header.memory_mb,
            memory_soft_limit_mb=history.memory_soft_limit(self.memory_soft_limit),
            memory_limit_mb=self.memory_limit,
            platform=history.header.platform,
            trials_left=stopping.trials_left,
            seconds_left=stopping.seconds_left,
            cost=history.usage.cost + sum(proposal.usage.cost for proposal in running),
            max_cost=self.max_cost,
            running=running,
            hidden=self.hidden,
        )
