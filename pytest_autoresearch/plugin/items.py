"""What pytest sees: the experiment's file, the items in it, and their compact reports."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_autoresearch import settings
from pytest_autoresearch.campaign import baseline
from pytest_autoresearch.errors import (
    AssertionFailure,
    BaselineFormatError,
    IncumbentFailed,
    ProposalRefused,
    RepositoryError,
    RunCrashed,
    RunFailed,
    RunOutOfMemory,
    RunPruned,
    RunTimedOut,
    ScoreRefused,
    ScorerUnavailable,
    StorageError,
    TrialNotKept,
)
from pytest_autoresearch.judging.judge import Judgement, Noise
from pytest_autoresearch.judging.pruning import Curve, prune_reason
from pytest_autoresearch.judging.state import JudgePolicy, JudgeState
from pytest_autoresearch.loop.repair import CrashRepair
from pytest_autoresearch.plugin.progress import LiveLine
from pytest_autoresearch.records.measurement import Measurement, format_exact, format_score, mean_score
from pytest_autoresearch.records.overheads import Overheads
from pytest_autoresearch.records.trial import Decision
from pytest_autoresearch.runs.experiment import KEY, Experiment
from pytest_autoresearch.runs.session import ProbeAllRows
from pytest_autoresearch.source import canonical
from pytest_autoresearch.source.validation import check, read
from pytest_autoresearch.system.text import single_line

if TYPE_CHECKING:
    from _pytest._code.code import ExceptionInfo
    from _pytest._io import TerminalWriter

    from pytest_autoresearch.agents.briefing import Briefing
    from pytest_autoresearch.campaign.writer import Campaign
    from pytest_autoresearch.records.proposal import Failure, Proposal
    from pytest_autoresearch.records.trial import Verdict

    Judge = Callable[[list[float], list[float], int], Judgement]

MEASURE = "measure one:  pytest --autoresearch --autoresearch-trials=0"
BASELINE_RUNS = 3  # of a new platform: the fewest that give a noise worth the name
CLAIM_RUNS = 2  # of the start, and of the incumbent


class ExperimentFile(pytest.File):
    """``experiment/train.py``: never imported, only run."""

    def collect(self) -> Iterator[ExperimentItem]:
        """Yield the items ``baseline`` and ``candidate``, or a replay; trials are made one by one."""
        if self.config.stash[settings.KEY].replay is not None:
            from pytest_autoresearch.plugin.replay import STORED_TRIAL, ReplayItem

            past = self.config.stash[STORED_TRIAL]
            yield ReplayItem.from_parent(self, name=f"replay[{past.name}]", past=past)
            return
        yield BaselineItem.from_parent(self, name="baseline")
        yield CandidateItem.from_parent(self, name="candidate")


class ExperimentItem(pytest.Item):
    """A test that runs the experiment."""

    autoresearch_outcome: tuple[str, str] | None = None
    """A word, ``passed`` or a verdict, and its reason: what the item's report says."""
    cold = False
    """Whether its runs begin without what compilers have kept."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.add_marker("experiment")
        self.limit: float | None = None  # seconds; pytest-timeout's, if it has one

    @property
    def experiment(self) -> Experiment:
        """The experiment of this session."""
        return self.session.stash[KEY]

    def setup(self) -> None:
        """Say how long a run may take, unless the user has told pytest-timeout."""
        if KEY not in self.session.stash:  # --setup-plan
            return
        if self.config.pluginmanager.has_plugin("timeout") and not self._has_timeout():
            # func_only, so that git and the agent do not count as training.
            self.add_marker(pytest.mark.timeout(self.experiment.limit, func_only=True))

    def _has_timeout(self) -> bool:
        config = self.config
        # pytest-timeout has read its variable by now, and sets the timer from it just the same.
        return (
            self.limit is not None
            or self.get_closest_marker("timeout") is not None
            or config.getoption("timeout", None) is not None
            or bool(config.getini("timeout"))
        )

    def measure(
        self,
        source: str,
        *,
        seed: int,
        thorough: ProbeAllRows = lambda _score: True,
        log: Path | None = None,
        claimed: bool = False,
        watch: Callable[[Curve], None] = lambda _curve: None,
    ) -> Measurement:
        """Run *source* once, with its progress on the live line; *watch* sees its loss curve grow."""
        limit, curve = self.limit or self.experiment.limit, Curve()

        def follow(line: str) -> None:
            live.quote(line)
            curve.add(line)
            watch(curve)

        with LiveLine(self.config, self.name) as live:
            run = self.experiment.measure(
                source,
                seed=seed,
                limit=limit,
                thorough=thorough,
                log=log,
                on_line=follow,
                claimed=claimed,
                needs=self.needs(),
                cold=self.cold,
            )
        kind = [("trust", run.trust), ("sandbox", run.sandbox)]
        self.user_properties += [note for note in kind if note not in self.user_properties]
        points = curve.points if any(point is not None for point in curve.points) else ()
        return dataclasses.replace(run, curve=points)

    def side_by_side(
        self, start: str, final: str, runs: int
    ) -> tuple[tuple[Measurement, ...], tuple[Measurement, ...]]:
        """Run two scripts in turn, with the same seeds that nobody has seen, and score them for a claim."""
        seeds = [fresh_seed() for _ in range(runs)]
        before: list[Measurement] = []
        after: list[Measurement] = []
        turns = [(start, before), (final, after)]
        for seed in seeds:
            turns.reverse()  # neither is always the first, for what that is worth on a machine that drifts
            for text, found in turns:
                found.append(self.measure(text, seed=seed, claimed=True))
        return tuple(before), tuple(after)

    def needs(self) -> Overheads | None:
        """Return what a run may take beside its training: the baseline's, None if there is none yet."""
        record = self.experiment.record()
        return None if record is None else record.needs

    def reportinfo(self) -> tuple[Path, int, str]:
        """Return where the item is; the line must be a number for pytest's skip marks."""
        return self.path, 0, self.name

    def note(self, **properties: object) -> None:
        """Add properties to the item's reports, for JUnit and other plugins."""
        self.user_properties += properties.items()

    def repr_failure(self, excinfo: ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Return what :meth:`explain` says, else pytest's traceback."""
        return self.explain(excinfo.value) or super().repr_failure(excinfo, style)

    def explain(self, error: BaseException) -> Compact | None:
        """Return a few lines instead of a traceback, where the reason is not in this program."""
        if isinstance(error, AssertionFailure):
            return Compact(str(error), error.lines)
        if isinstance(error, RunFailed):
            return Compact(str(error), error.tail)
        if isinstance(
            error,
            (
                TrialNotKept,
                ProposalRefused,
                IncumbentFailed,
                RepositoryError,
                StorageError,
                ScorerUnavailable,
                BaselineFormatError,
            ),
        ):
            return Compact(str(error), ())
        return None


class ComparisonItem(ExperimentItem):
    """An item that measures a script, and the incumbent again, until it is decided which is better."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.code_size_change = 0
        """Of Python that the script is longer than the incumbent."""
        self.runs: list[Measurement] = []
        self.incumbent_runs: list[Measurement] = []
        """The incumbent's."""

    def compare(
        self,
        source: str,
        incumbent: str,
        judge: Judge,
        *,
        watch: Callable[[Curve], None] = lambda _curve: None,
        log: Path | None = None,
    ) -> Judgement:
        """Return the judgement on *source*, which is to keep or to discard it.

        Raises:
            RunFailed: a run of *source* failed.
            Undecided: the incumbent failed.
        """
        self.code_size_change = canonical.code_size(source) - canonical.code_size(incumbent)

        def judged(*more: float) -> Judgement:
            scores = [*(run.score for run in self.runs), *more]
            return judge(scores, [run.score for run in self.incumbent_runs], self.code_size_change)

        def may_be_kept(score: float) -> bool:  # at once, or by what a run of the incumbent says next
            return judged(score).action != "discard"

        while True:
            judgement, seed = judged(), fresh_seed()  # no seed tells whose run it is
            if judgement.action == "measure candidate":
                self.runs.append(self.measure(source, seed=seed, thorough=may_be_kept, log=log, watch=watch))
            elif judgement.action == "measure incumbent":
                self.incumbent_runs.append(self._measure_incumbent(incumbent, seed, log))
            else:
                return judgement

    def _measure_incumbent(self, incumbent: str, seed: int, log: Path | None) -> Measurement:
        def thorough(_score: float) -> bool:
            return False  # as it was probed before it was kept

        try:
            return self.measure(incumbent, seed=seed, log=log, thorough=thorough)
        except RunFailed:  # which says nothing of the proposal
            try:
                return self.measure(incumbent, seed=fresh_seed(), log=log, thorough=thorough)
            except RunFailed as error:
                raise IncumbentFailed(f"the incumbent, measured again, failed twice: {error}") from error


class BaselineItem(ExperimentItem):
    """The committed script, measured again: its stored figure has to reproduce."""

    measured: tuple[Measurement, ...] = ()
    cold = True

    def runtest(self) -> None:
        """Measure once and compare; under ``--autoresearch`` measure a new platform several times."""
        experiment = self.experiment
        record, blob = experiment.record(), experiment.repository.blob_of(experiment.repository.script)
        if record is not None and record.blob == blob:
            self._reproduce(record)
        elif experiment.settings.research:
            seeds = range(1, BASELINE_RUNS + 1)
            self.measured = tuple(self.measure(experiment.script(), seed=seed) for seed in seeds)
            noise = Noise.of([run.score for run in self.measured])
            self._pass(f"spread {format_score(noise.spread)} in {BASELINE_RUNS} runs")
        else:
            raise self._unknown(record)

    def needs(self) -> Overheads | None:
        """Return what the stored baseline took, None for a script that is measured for the first time."""
        record, repository = self.experiment.record(), self.experiment.repository
        is_known = record is not None and record.blob == repository.blob_of(repository.script)
        return super().needs() if is_known else None

    def _reproduce(self, record: baseline.Baseline) -> None:
        experiment, start, script = self.experiment, None, self.experiment.script()
        if record.start is not None and not experiment.settings.research:  # which makes a claim in the end
            start = experiment.repository.text_if_there(record.start)
        run, known = self.measure(script, seed=fresh_seed(), claimed=start is not None), record.belief.mean
        self.measured = (run,)
        if abs(run.score - known) > record.tolerance:
            raise AssertionFailure(
                f"{record.metric} {format_score(run.score)}: the baseline of {format_score(known)} "
                "does not reproduce",
                f"stored      {format_exact(known)} ± {format_exact(record.belief.error)}",
                f"measured    {format_exact(run.score)}",
                f"difference  {run.score - known:+.6g}",
                f"tolerance   {format_exact(record.tolerance)}, noise {format_exact(record.noise.spread)}",
            )
        reason = f"stored {format_score(known)} ± {format_score(record.tolerance)}"
        self._pass(reason if start is None else f"{reason}; {self._from_start(start, run, record)}")

    def _from_start(self, start: str, run: Measurement, record: baseline.Baseline) -> str:
        """Measure the script that the campaign began with beside *run*, and return what was gained."""
        try:
            before = self.measure(start, seed=run.seed, claimed=True)
        except RunFailed as error:
            return f"its campaign's start no longer runs: {error}"
        return f"{baseline.Claim.of((before,), (run,), record.noise)} from its campaign's start"

    def _pass(self, reason: str) -> None:
        score = mean_score(self.measured)
        self.note(**{self.experiment.settings.metric: score, "runs": len(self.measured)})
        self.autoresearch_outcome = "passed", f"{format_score(score)}, {reason}"

    def _unknown(self, record: baseline.Baseline | None) -> AssertionFailure:
        what = "this platform" if record is None else f"this version of {self.path.name}"
        return AssertionFailure(
            f"no baseline is known for {what}",
            MEASURE,
            *(f"{key:<12}  {single_line(value)}" for key, value in self.experiment.platform.items()),
        )


class CandidateItem(ComparisonItem):
    """The working tree's script: it has to beat the baseline."""

    def runtest(self) -> None:
        """Measure until it is decided; pass if the script would be kept."""
        experiment = self.experiment
        repository, record = experiment.repository, experiment.record()
        if record is None:
            raise AssertionFailure("no baseline is known for this platform", MEASURE)
        if repository.blob_in_tree(repository.script) == record.blob:
            pytest.skip(f"{self.path.name} is the baseline")
        standing = JudgeState.opening(JudgePolicy.of(experiment.settings), record.belief, record.noise)
        incumbent = repository.text(record.blob, self.path.name)
        judgement = self.compare(read(self.path), incumbent, standing.judge)
        score, belief = mean_score(self.runs), record.belief
        self.note(**{record.metric: score})
        if judgement.action != "keep":
            raise AssertionFailure(
                f"{record.metric} {format_score(score)}: the baseline of {format_score(belief.mean)} "
                "is not beaten",
                f"baseline    {format_exact(belief.mean)} ± {format_exact(belief.error)}",
                f"measured    {', '.join(format_exact(run.score) for run in self.runs)}",
                f"difference  {judgement.reason}",
            )
        self.autoresearch_outcome = "passed", f"{format_score(score)}, {judgement.reason}"


class ClaimItem(ExperimentItem):
    """What the campaign has gained: its start and its incumbent, measured afresh, side by side."""

    def __init__(self, *, campaign: Campaign, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.campaign = campaign

    def setup(self) -> None:
        """Refuse to go on when somebody else has changed what the campaign stands on."""
        super().setup()
        self.campaign.check_ground()

    def runtest(self) -> None:
        """Measure both, and store what they say."""
        metric, script = self.experiment.settings.metric, self.experiment.script()
        claim = self.campaign.claim(*self.side_by_side(self.campaign.start, script, CLAIM_RUNS))
        self.note(gain=claim.gain, margin=claim.margin, runs=CLAIM_RUNS)
        self.autoresearch_outcome = "passed", f"{metric} {claim} in {CLAIM_RUNS} fresh runs each"


# What ends the measuring of a trial, and its verdict then.
VERDICTS: dict[type[Exception], Verdict] = {
    ProposalRefused: "refused",
    ScoreRefused: "refused",
    RunTimedOut: "timeout",
    RunOutOfMemory: "out of memory",
    RunCrashed: "crashed",
    IncumbentFailed: "discarded",
    RunPruned: "discarded",
}


class TrialItem(ComparisonItem):
    """One turn of the loop: call measures and judges, teardown commits or drops.

    Teardown runs after Ctrl-C too, and a trial without a decision by then is dropped.
    """

    decision: Decision | None = None

    def __init__(
        self, *, proposal: Proposal, briefing: Briefing, campaign: Campaign, **arguments: Any
    ) -> None:
        super().__init__(**arguments)
        self.briefing = briefing
        self.number = briefing.number
        self.campaign = campaign
        self.mending = CrashRepair(proposal, campaign.log(self.number))

    @property
    def proposal(self) -> Proposal:
        """What is proposed, mended or not."""
        return self.mending.proposal

    def setup(self) -> None:
        """Refuse to go on when somebody else has changed what the campaign stands on."""
        super().setup()
        self.campaign.check_ground()

    def runtest(self) -> None:
        """Decide on the proposal.

        Raises:
            NotKept: always but for a kept trial.
        """
        self.decision = dataclasses.replace(self._decide(), crashes=tuple(self.mending.crashes))
        self.autoresearch_outcome = self.decision.verdict, self.decision.reason
        self.note(trial=self.number, description=self.proposal.description)
        self.note(verdict=self.decision.verdict, reason=self.decision.reason)
        for run in self.decision.measurements:
            self.note(**{self.experiment.settings.metric: run.score})
        if self.decision.verdict != "kept":
            raise TrialNotKept(self.decision.reason)

    def _decide(self) -> Decision:
        """Measure and judge the proposal, which is mended if it crashes."""
        if self.proposal.unanswered:
            return Decision("refused", self.proposal.unanswered)
        while True:
            try:
                return self._judged()
            except tuple(VERDICTS) as error:
                broken = isinstance(error, RunCrashed) or (
                    self.mending.crashes and isinstance(error, ProposalRefused)
                )
                if not broken or self.runs or not self.mending.mend(error, self._ask):
                    return self._decided(VERDICTS[type(error)], str(error))

    def _judged(self) -> Decision:
        experiment, source, script = self.experiment, self.proposal.source, self.experiment.script()
        check(source, script, experiment.device, experiment.fixed)
        self._check_untried(script)
        self.mending.begin()
        log = self.campaign.log(self.number)
        judgement = self.compare(source, script, self.campaign.judge, watch=self._watch(), log=log)
        verdict: Verdict = "kept" if judgement.action == "keep" else "discarded"
        return self._decided(
            verdict, f"{format_score(mean_score(self.runs))}, {judgement.reason}{self._memory()}"
        )

    def _decided(self, verdict: Verdict, reason: str) -> Decision:
        reason = f"{reason}{self.mending.remark}"
        return Decision(
            verdict,
            reason,
            tuple(self.runs),
            tuple(self.incumbent_runs),
            self.code_size_change if self.runs else 0,
        )

    def _ask(self, failure: Failure) -> object:
        with LiveLine(self.config, self.name) as live:
            live.update(f"{failure.reason}: asking for a fix")
            return self.config.hook.pytest_autoresearch_fix(
                config=self.config, briefing=self.briefing, failure=failure
            )

    def _check_untried(self, script: str) -> None:
        """Refuse what would be no experiment: it does the same as the incumbent, or as an earlier trial."""
        source = self.proposal.source
        if alike := canonical.equivalent_up_to(script, source):
            raise ProposalRefused(f"no experiment: {alike} changed")
        number = self.campaign.trial_like(source)
        if number is not None:
            raise ProposalRefused(f"the same script as {f'trial {number}' if number else 'at the start'}")

    def _watch(self) -> Callable[[Curve], None]:
        """Return what ends a hopeless first run, if that was asked for."""
        margins = self.campaign.margins() if self.experiment.settings.prune else None

        def watch(curve: Curve) -> None:
            if margins is None or self.runs:
                return
            if reason := prune_reason(curve.points, self.campaign.curve(), margins):
                raise RunPruned(reason)

        return watch

    def _memory(self) -> str:
        """Return what there is to say about memory."""
        used = max((run.memory_mb for run in self.runs if run.memory_mb), default=0.0)
        limit = self.campaign.memory_soft_limit()
        over = limit is not None and used > limit
        return f", {used:.0f} MB of memory, {limit:.0f} is the soft limit" if over else ""

    def teardown(self) -> None:
        """Commit the decision; a trial that was cut short leaves nothing."""
        if self.decision is not None:
            self.campaign.conclude(self.number, self.proposal, self.decision)


def fresh_seed() -> int:
    """Return a seed that nobody has seen: torch and numpy both take 31 bits."""
    return secrets.randbits(31)


class Compact:
    """A failure in a few lines: pytest asks a representation for no more than these three."""

    def __init__(self, headline: str, lines: Iterable[str]) -> None:
        self.reprcrash = SimpleNamespace(message=headline)
        self._lines = [f"  {line}" for line in lines]

    def __str__(self) -> str:
        return "\n".join([self.reprcrash.message, *self._lines])

    def toterminal(self, writer: TerminalWriter) -> None:
        """Write the headline in red, and the lines below it."""
        writer.line(self.reprcrash.message, red=True, bold=True)
        for line in self._lines:
            writer.line(line)
