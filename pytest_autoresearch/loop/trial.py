"""One trial, from its proposal to its decision, without I/O.

A :class:`TrialTask` says what it needs next, and is fed what came back; it starts no run, asks no agent, and
reads no file, no clock and no random source::

    task = TrialTask(setup, draw_seed, check)
    while not isinstance(step := task.next(), Decision):
        task.feed(run(step) if isinstance(step, RunRequest) else ask_for_repair(step))

A task waits for one answer at a time. Many tasks can be in flight at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

from pytest_autoresearch.errors import ProposalRefused
from pytest_autoresearch.executors.base import Role, RunFailure, RunOutcome, RunRequest
from pytest_autoresearch.judging.judge import Judgement, JudgeState
from pytest_autoresearch.judging.pruning import PruneRule
from pytest_autoresearch.judging.rules import Always, MayBeKept, ProbeRule
from pytest_autoresearch.records.measurement import Measurement, format_score, mean_score
from pytest_autoresearch.records.overheads import Overheads
from pytest_autoresearch.records.proposal import Failure, Proposal, checked
from pytest_autoresearch.records.trial import Decision, Verdict
from pytest_autoresearch.source.files import code_size
from pytest_autoresearch.text import single_line

MAX_REPAIRS = 3
RepairRequest: TypeAlias = Failure
"""What the hook ``pytest_autoresearch_fix`` is given."""

REPAIRABLE: tuple[Verdict, ...] = "crashed", "out of memory"


@dataclasses.dataclass(frozen=True, slots=True)
class TrialSetup:
    """What a trial starts from. It does not change while the trial is in flight."""

    proposal: Proposal
    incumbent: Mapping[str, str]
    """Path and text of each of the incumbent's editable files."""
    state: JudgeState
    """After the last decided trial."""
    incumbent_scores: tuple[float, ...] = ()
    """Of runs that the incumbent had since then, and that belong to no trial yet."""
    prune: PruneRule | None = None
    """Applies to the candidate's first run only."""
    memory_soft_limit: float | None = None
    """MiB; the reason of the decision says if a run used more."""
    max_repairs: int = MAX_REPAIRS
    overheads: Overheads | None = None
    limit: float | None = None
    log: Path | None = None
    """These three are passed on in each :class:`RunRequest`."""


class TrialTask:
    """The state of one trial.

    *check* raises :class:`ProposalRefused` if a proposal, repaired or not, is not worth a run.
    """

    def __init__(
        self,
        setup: TrialSetup,
        draw_seed: Callable[[], int],
        check: Callable[[Proposal], None] = lambda _proposal: None,
    ) -> None:
        self._setup, self._draw_seed, self._check = setup, draw_seed, check
        self.proposal = setup.proposal
        """The proposal as it is now, repaired or not, with the cost of every repair."""
        self.crashes: list[str] = []
        """Why it failed before each repair, one line each."""
        self.runs: list[Measurement] = []
        self.incumbent_runs: list[Measurement] = []
        self.judgement: Judgement | None = None
        """The last judgement; None until the first proposal has passed its check."""
        self.code_size_change = 0
        """Code size of the candidate less that of the incumbent, in tokens."""
        self._step: RunRequest | RepairRequest | Decision | None = None
        self._files: Mapping[str, str] | None = None  # of the candidate, once its proposal is checked
        self._verdict: Verdict = "crashed"  # of the failure that a repair was requested for
        self._no_fix = ""  # why the last repair was none
        self._incumbent_failed = False  # in its last run

    def next(self) -> RunRequest | RepairRequest | Decision:
        """Return what the trial needs, or its decision: the same object until :meth:`feed` is called.

        What ``check`` raises, other than :class:`ProposalRefused`, passes through and changes nothing.
        """
        if self._step is None:
            self._step = self._advance()
        return self._step

    def feed(self, answer: object) -> None:
        """Take the answer to the last request: to a :class:`RunRequest` a :class:`RunOutcome`.

        To a :data:`RepairRequest` it is a proposal, None for no repair, or the exception that the attempt
        ended with; anything else that an agent answers is a failed attempt too.

        Raises:
            RuntimeError: nothing was requested.
            TypeError: a run was requested, and *answer* is no outcome of a run.
        """
        step = self._step
        if isinstance(step, RunRequest):
            if not isinstance(answer, RunOutcome):
                raise TypeError(f"a RunOutcome was requested, not {answer!r}")
            self._step = self._after_run(step.role, answer.result)
        elif isinstance(step, RepairRequest):
            self._step = self._after_repair(step, answer)
        else:
            raise RuntimeError("the trial has requested nothing: call next() before feed()")  # noqa: TRY004 - it is the state

    def _advance(self) -> RunRequest | RepairRequest | Decision:
        if self.proposal.unanswered:
            return Decision("refused", self.proposal.unanswered)
        if self._files is None:
            try:
                self._check(self.proposal)
            except ProposalRefused as error:
                return self._failed("refused", str(error), is_repairable=bool(self.crashes))
            self._files = {**self._setup.incumbent, **self.proposal.files}
            self.code_size_change = code_size(self._files) - code_size(self._setup.incumbent)
        scores = tuple(run.score for run in self.runs)
        incumbent_scores = (*self._setup.incumbent_scores, *(run.score for run in self.incumbent_runs))
        state, change = self._setup.state, self.code_size_change
        self.judgement = state.judge(scores, incumbent_scores, change)
        match self.judgement.action:
            case "measure candidate":
                rule = MayBeKept(state, scores, incumbent_scores, change)
                return self._run("candidate", self._files, rule, None if self.runs else self._setup.prune)
            case "measure incumbent":  # in which all rows were probed before it was kept
                return self._run("incumbent", self._setup.incumbent, Always(False), None)
            case action:
                reason = f"{format_score(mean_score(self.runs))}, {self.judgement.reason}{self._memory()}"
                return self._decided("kept" if action == "keep" else "discarded", reason)

    def _run(
        self, role: Role, files: Mapping[str, str], probe_all_rows: ProbeRule, prune: PruneRule | None
    ) -> RunRequest:
        setup = self._setup
        return RunRequest(
            role,
            files,
            self._draw_seed(),
            probe_all_rows,
            prune,
            overheads=setup.overheads,
            limit=setup.limit,
            log=setup.log,
        )

    def _after_run(
        self, role: Role, result: Measurement | RunFailure
    ) -> RunRequest | RepairRequest | Decision | None:
        if isinstance(result, Measurement):
            (self.runs if role == "candidate" else self.incumbent_runs).append(result)
            self._incumbent_failed = False
            return None
        if role == "candidate":
            verdict: Verdict = "discarded" if result.kind == "pruned" else result.kind
            is_repairable = verdict in REPAIRABLE and not self.runs
            return self._failed(verdict, result.reason, result.log, is_repairable=is_repairable)
        if self._incumbent_failed:
            reason = f"the incumbent, measured again, failed twice: {result.reason}"
            return self._decided("discarded", single_line(reason, 300))
        self._incumbent_failed = True  # this says nothing of the proposal: try once more, with another seed
        return None

    def _failed(
        self, verdict: Verdict, reason: str, log: str = "", *, is_repairable: bool
    ) -> RepairRequest | Decision:
        if is_repairable and len(self.crashes) < self._setup.max_repairs:
            self._verdict = verdict
            return RepairRequest(self.proposal, reason, log, len(self.crashes))
        return self._decided(verdict, reason)

    def _after_repair(self, request: RepairRequest, answer: object) -> Decision | None:
        if answer is None:
            return self._decided(self._verdict, request.reason)
        try:
            if isinstance(answer, Exception):
                raise answer  # noqa: TRY301 - it is no repair, as an answer that is no proposal
            repaired = checked(answer)
        except Exception as error:  # noqa: BLE001 - the answer's own code may run here
            self._no_fix = single_line(f"no fix: {type(error).__name__}: {error}")
            return self._decided(self._verdict, request.reason)
        old = self.proposal
        self.proposal = dataclasses.replace(old, usage=old.usage + repaired.usage)
        if repaired.unanswered:
            self._no_fix = f"no fix: {repaired.unanswered}"
            return self._decided(self._verdict, request.reason)
        self.proposal = dataclasses.replace(
            self.proposal,
            files=repaired.files,
            description=repaired.description,
            hypothesis=repaired.hypothesis or old.hypothesis,
        )
        self.crashes.append(request.reason)
        self._files = None
        return None

    def _decided(self, verdict: Verdict, reason: str) -> Decision:
        times = len(self.crashes)
        repaired = f"repaired {times} time{'s' * (times > 1)}" if times else ""
        if remarks := ", ".join(filter(None, (repaired, self._no_fix))):
            reason = f"{reason} ({remarks})"
        return Decision(
            verdict,
            reason,
            tuple(self.runs),
            tuple(self.incumbent_runs),
            self.code_size_change if self.runs else 0,
            tuple(self.crashes),
        )

    def _memory(self) -> str:
        used = max((run.memory_mb for run in self.runs if run.memory_mb), default=0.0)
        limit = self._setup.memory_soft_limit
        over = limit is not None and used > limit
        return f", {used:.0f} MB of memory, {limit:.0f} is the soft limit" if over else ""
