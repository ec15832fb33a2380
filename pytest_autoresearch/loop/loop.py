"""The loop of a campaign: ask, run, judge, store, tell, until it is stopped or out of budget."""

from __future__ import annotations

import dataclasses
import secrets
import time
from concurrent.futures import Future
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
from pytest_autoresearch.judging.pruning import PruneRule
from pytest_autoresearch.loop.asking import BriefingMaker
from pytest_autoresearch.loop.stopping import Stopping
from pytest_autoresearch.loop.trial import TrialSetup, TrialTask
from pytest_autoresearch.loop.watch import Watch
from pytest_autoresearch.records.proposal import Failure, Proposal, checked
from pytest_autoresearch.records.trial import Decision, Trial
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

    def report(self, decided: DecidedTrial) -> None:
        """Tell of a trial that is decided and stored."""

    def wait(self, seconds: float) -> None:
        """Wait before agents that had no answer are asked again."""


@dataclasses.dataclass(frozen=True, slots=True)
class DecidedTrial:
    """A trial that is decided and stored."""

    trial: Trial
    started: float
    """When its first run was asked for, in seconds since the epoch."""
    stopped: float
    """When it was decided."""


@dataclasses.dataclass(eq=False, slots=True)
class TrialInFlight:
    """A trial whose number is reserved, and that is not decided."""

    number: int
    base: str
    """The commit of the incumbent that it was made from."""
    briefing: Briefing
    task: TrialTask
    started: float


@dataclasses.dataclass(frozen=True, slots=True)
class TrialLimits:
    """What the user has set for every trial."""

    prune: bool = False
    memory_soft_limit: float | None = None
    """MiB; None takes a multiple of the start's memory."""
    run_seconds: float | None = None
    """Wall time of a run; None takes the experiment's own limit."""


class ResearchLoop:
    """Trial after trial, as many at a time as the executor makes runs.

    Only runs happen elsewhere. Agents are asked, and trials judged and stored, by the caller of :meth:`run`.
    """

    def __init__(
        self,
        host: Host,
        writer: CampaignWriter,
        executor: Executor,
        briefings: BriefingMaker,
        *,
        stopping: Stopping,
        limits: TrialLimits,
    ) -> None:
        self._host = host
        self._writer = writer
        self._capacity = executor.capacity
        self._watch = Watch(executor, host.show, host.idle)
        self._briefings = briefings
        self._stopping = stopping
        self._limits = limits
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
            while len(self._in_flight) < self._capacity and self._may_start():
                self._start()
            if not self._in_flight:
                return
            for future in self._watch.wait():
                trial = self._in_flight.pop(future)
                trial.task.feed(future.result())
                self._advance(trial)

    def _may_start(self) -> bool:
        return not self._is_over and self._stopping.may_start()

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
        trial = TrialInFlight(number, self._writer.branch.tip, briefing, task, time.time())
        self._advance(trial)
        is_full = len(self._in_flight) == self._capacity
        if is_full and self._stopping.may_follow(self._writer.history.trials):
            self._host.prefetch(self._briefing(number + 1))

    def _briefing(self, number: int) -> Briefing:
        running = tuple(trial.task.proposal for trial in self._in_flight.values())
        return self._briefings.make(number, self._stopping, running)

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
        writer, history, limits = self._writer, self._writer.history, self._limits
        margins = history.margins(writer.state.noise.std) if limits.prune else None
        return TrialSetup(
            proposal,
            writer.files,
            writer.state,
            writer.unassigned_scores,
            prune=None if margins is None else PruneRule(history.curve, margins),
            memory_soft_limit=history.memory_soft_limit(limits.memory_soft_limit),
            overheads=history.incumbent.overheads,
            limit=limits.run_seconds,
            log=writer.logs.path(number),
        )

    def _check(self, proposal: Proposal) -> None:
        """Check that a proposal is worth a run.

        Raises:
            ProposalRefused: it cannot run, or it is no experiment: it does what the incumbent or an earlier
                trial does.
        """
        incumbent, briefings = self._writer.files, self._briefings
        files = source.checked(proposal.files, incumbent, briefings.spec, briefings.device, briefings.fixed)
        number = self._writer.history.trial_like(files)
        if number is not None:
            raise ProposalRefused(f"the same script as {f'trial {number}' if number else 'at the start'}")

    def _advance(self, trial: TrialInFlight) -> None:
        """Take *trial* as far as it comes without waiting for a run."""
        while True:
            match step := trial.task.next():
                case RunRequest():
                    self._in_flight[self._watch.submit(f"trial {trial.number}", step)] = trial
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
        """Store a decided trial, and tell of it.

        Raises:
            LoopFailed: the loop cannot go on after it.
        """
        if trial.base != self._writer.branch.tip:
            raise LoopFailed(f"trial {trial.number} was made from a version that is no longer the incumbent")
        problem = None
        try:
            self._writer.add_trial(trial.number, trial.task.proposal, decision)
        except RepositoryError as error:
            problem = error
        history = self._writer.history
        if problem is not None and (not history.trials or history.trials[-1].number != trial.number):
            raise LoopFailed(f"trial {trial.number} could not be stored: {problem}") from problem
        stored = history.trials[-1]
        self._host.report(DecidedTrial(stored, trial.started, time.time()))
        if problem is not None:
            raise LoopFailed(str(problem)) from problem
        if reason := self._stopping.reason_to_give_up(history.trials):
            raise LoopFailed(reason)
        if seconds := self._stopping.wait_after(stored):
            self._host.wait(seconds)


def fresh_seed() -> int:
    """Return a seed that nobody has seen: torch and numpy both take 31 bits."""
    return secrets.randbits(31)
