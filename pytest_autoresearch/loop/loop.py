"""The loop of a campaign: ask, run, judge, store, tell, until it is stopped or out of budget."""

from __future__ import annotations

import dataclasses
import secrets
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Protocol

from pytest_autoresearch.agents.briefing import Briefing
from pytest_autoresearch.campaign.writer import CampaignWriter
from pytest_autoresearch.errors import (
    AllAgentsUnavailable,
    LoopFailed,
    ProposalRefused,
    RepositoryError,
    StorageError,
)
from pytest_autoresearch.executors.base import Executor, RunOutcome, RunRequest
from pytest_autoresearch.loop.stopping import Stopping
from pytest_autoresearch.loop.trial import TrialSetup, TrialTask
from pytest_autoresearch.loop.watch import Watch
from pytest_autoresearch.records.proposal import Failure, Proposal, checked
from pytest_autoresearch.records.trial import Decision, Trial
from pytest_autoresearch.settings import Settings
from pytest_autoresearch.source import files as source


class Host(Protocol):
    """The program around the loop: it asks agents and tells people. It is called on the main thread only."""

    def propose(self, briefing: Briefing) -> Proposal | None:
        """Return the next proposal; None ends the loop."""

    def repair(self, briefing: Briefing, failure: Failure) -> Proposal | None:
        """Return a proposal that crashed, repaired; None gives it up."""

    def prefetch(self, briefing: Briefing) -> None:
        """Ask for the next proposal in advance, while others are measured, if that can be done."""

    def show(self, name: str, line: str) -> None:
        """Show the last line that a run has printed; called several times a second."""

    def idle(self) -> None:
        """Do small things while runs are in progress; called several times a second."""

    def report(self, trial: Trial, started: float, stopped: float) -> None:
        """Tell of a trial that is stored, asked for and decided at these seconds since the epoch."""

    def wait(self, seconds: float) -> None:
        """Wait before agents that had no answer are asked again."""


@dataclasses.dataclass(frozen=True, slots=True)
class Surroundings:
    """What proposals are made for: what agents are told, and what holds for every run."""

    program: str
    """The text of ``program.md``, empty if there is none."""
    fixed: str
    """The text of ``prepare.py``, empty if there is none."""
    device: str
    """The column of ``per_device`` in use."""
    hidden: tuple[Path, ...]
    """Files and folders that no agent may read."""
    run_seconds: float | None = None
    """Wall time of a run; None takes the experiment's own limit."""


@dataclasses.dataclass(frozen=True, slots=True)
class TrialInFlight:
    """A trial whose number is reserved, and that is not decided."""

    briefing: Briefing
    task: TrialTask
    base: str
    """The commit of the incumbent that it was made from."""
    started: float


class ResearchLoop:
    """Trial after trial, as many at a time as the executor makes runs.

    Only runs happen elsewhere. Agents are asked, and trials judged and stored, by the caller of :meth:`run`.
    """

    def __init__(
        self,
        host: Host,
        writer: CampaignWriter,
        executor: Executor,
        settings: Settings,
        surroundings: Surroundings,
    ) -> None:
        self._host, self._writer = host, writer
        self._settings, self._surroundings = settings, surroundings
        self._capacity = executor.capacity
        self._watch = Watch(executor, host.show, host.idle)
        self._stopping = Stopping(settings.trials, settings.hours, settings.give_up_after)
        self._in_flight: dict[Future[RunOutcome], TrialInFlight] = {}
        self._reserved = writer.history.next_number - 1  # the last number that was given to a trial
        self._is_over = False  # agents have nothing more to propose

    def run(self) -> None:
        """Go on until a limit is reached, or agents have nothing more to propose.

        Raises:
            LoopFailed: it cannot go on; every decided trial is stored.
            RepositoryError: somebody else has changed what the campaign stands on.
            StorageError: the disk is full or failing.
        """
        while True:
            while len(self._in_flight) < self._capacity and not self._is_over and self._stopping.may_start():
                self._start()
            if not self._in_flight:
                return
            for future in self._watch.wait():
                trial = self._in_flight.pop(future)
                trial.task.feed(future.result())
                self._advance(trial)

    def _start(self) -> None:
        """Reserve a number, ask for a proposal, and take the trial as far as it comes without waiting."""
        number = self._reserved + 1
        briefing = self._briefing(number)
        proposal = self._proposed(briefing)
        if proposal is None:
            self._is_over = True
            return
        self._reserved = number
        self._stopping.count()
        self._writer.branch.check_unchanged()
        task = TrialTask(self._setup(number, proposal), fresh_seed, self._check)
        self._advance(TrialInFlight(briefing, task, self._writer.branch.tip, time.time()))
        is_full = len(self._in_flight) == self._capacity
        if is_full and self._stopping.may_follow(self._writer.history.trials):
            self._host.prefetch(self._briefing(number + 1))

    def _briefing(self, number: int) -> Briefing:
        """Return the briefing for trial *number*, made while the trials in flight are measured."""
        writer, history, settings = self._writer, self._writer.history, self._settings
        running = tuple(trial.task.proposal for trial in self._in_flight.values())
        return Briefing(
            tag=history.tag,
            number=number,
            program=self._surroundings.program,
            fixed=self._surroundings.fixed,
            files=writer.files,
            start_files=history.header.files,
            script_name=settings.spec.script,
            history=history.trials,
            score=writer.state.incumbent.mean,
            noise=writer.state.noise.std,
            metric=settings.spec.metric,
            direction=settings.spec.direction,
            memory_mb=history.header.memory_mb,
            memory_soft_limit_mb=history.memory_soft_limit(settings.memory_soft_limit),
            memory_limit_mb=settings.memory_limit,
            platform=history.incumbent.platform,
            trials_left=self._stopping.trials_left,
            seconds_left=self._stopping.seconds_left,
            cost=history.usage.cost + sum(proposal.usage.cost for proposal in running),
            max_cost=settings.agents.max_cost,
            running=running,
            hidden=self._surroundings.hidden,
        )

    def _proposed(self, briefing: Briefing) -> Proposal | None:
        try:
            proposal = self._host.propose(briefing)
            return None if proposal is None else checked(proposal)
        except StorageError:
            raise
        except AllAgentsUnavailable as error:
            raise LoopFailed(f"no agent is left: {error}") from error
        except Exception as error:
            raise LoopFailed(f"no proposal: {type(error).__name__}: {error}") from error

    def _setup(self, number: int, proposal: Proposal) -> TrialSetup:
        writer, history, settings = self._writer, self._writer.history, self._settings
        return TrialSetup(
            proposal,
            writer.files,
            writer.state,
            tuple(run.score for run in writer.unassigned),
            prune=history.prune_rule(writer.state) if settings.prune else None,
            memory_soft_limit=history.memory_soft_limit(settings.memory_soft_limit),
            overheads=history.incumbent.overheads,
            limit=self._surroundings.run_seconds,
            log=writer.logs.path(number),
        )

    def _check(self, proposal: Proposal) -> None:
        """Raise ProposalRefused if a proposal cannot run, or does what the incumbent or a trial has done."""
        spec, around = self._settings.spec, self._surroundings
        files = source.checked(proposal.files, self._writer.files, spec, around.device, around.fixed)
        number = self._writer.history.trial_like(files)
        if number is not None:
            raise ProposalRefused(f"the same script as {f'trial {number}' if number else 'at the start'}")

    def _advance(self, trial: TrialInFlight) -> None:
        """Take *trial* as far as it comes without waiting for a run."""
        while True:
            match step := trial.task.next():
                case RunRequest():
                    self._in_flight[self._watch.submit(f"trial {trial.briefing.number}", step)] = trial
                    return
                case Failure():
                    trial.task.feed(self._repaired(trial, step))
                case Decision():
                    self._conclude(trial, step)
                    return

    def _repaired(self, trial: TrialInFlight, failure: Failure) -> object:
        try:
            return self._host.repair(trial.briefing, failure)
        except StorageError:
            raise
        except Exception as error:  # noqa: BLE001 - it is somebody else's code
            return error

    def _conclude(self, trial: TrialInFlight, decision: Decision) -> None:
        """Store a decided trial, and tell of it; raise LoopFailed if the loop cannot go on after it."""
        number, problem = trial.briefing.number, None
        if trial.base != self._writer.branch.tip:
            raise LoopFailed(f"trial {number} was made from a version that is no longer the incumbent")
        try:
            self._writer.add_trial(number, trial.task.proposal, decision)
        except RepositoryError as error:
            problem = error
        trials = self._writer.history.trials
        if problem is not None and (not trials or trials[-1].number != number):
            raise LoopFailed(f"trial {number} could not be stored: {problem}") from problem
        self._host.report(trials[-1], trial.started, time.time())
        if problem is not None:
            raise LoopFailed(str(problem)) from problem
        if reason := self._stopping.reason_to_give_up(trials):
            raise LoopFailed(reason)
        if seconds := self._stopping.wait_after(trials[-1]):
            self._host.wait(seconds)


def fresh_seed() -> int:
    """Return a seed that nobody has seen: torch and numpy both take 31 bits."""
    return secrets.randbits(31)
