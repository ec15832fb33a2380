"""What pytest sees: the experiment's file, the items in it, and their compact reports."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_autoresearch import baseline, judge
from pytest_autoresearch.agents.edits import Refused, check, read
from pytest_autoresearch.experiment import KEY, Experiment
from pytest_autoresearch.judge import Judgement
from pytest_autoresearch.ledger import Decision
from pytest_autoresearch.measuring.handover import Thorough
from pytest_autoresearch.measuring.measurement import Measurement, exact, figure, mean_score
from pytest_autoresearch.measuring.output import Crashed, RunFailed, ScoreRefused, TimedOut
from pytest_autoresearch.measuring.scorer import Broken
from pytest_autoresearch.reporting.live import LiveLine
from pytest_autoresearch.repository import Unusable

if TYPE_CHECKING:
    from _pytest._code.code import ExceptionInfo
    from _pytest._io import TerminalWriter

    from pytest_autoresearch.agents.briefing import Proposal
    from pytest_autoresearch.campaign import Campaign

MEASURE = "measure one:  pytest --autoresearch --autoresearch-trials=0"
BASELINE_RUNS = 3  # of a new platform: the fewest that give a noise worth the name


class Unmet(Exception):
    """An experiment's assertion does not hold; *lines* are the figures."""

    def __init__(self, headline: str, *lines: str) -> None:
        super().__init__(headline)
        self.lines = lines


class ExperimentFile(pytest.File):
    """``experiment/train.py``: never imported, only run."""

    def collect(self) -> Iterator[ExperimentItem]:
        """Yield the items ``baseline`` and ``candidate``; trials are made one by one."""
        yield Baseline.from_parent(self, name="baseline")
        yield Candidate.from_parent(self, name="candidate")


class ExperimentItem(pytest.Item):
    """A test that runs the experiment."""

    autoresearch_outcome: tuple[str, str] | None = None
    """A word, ``passed`` or a verdict, and its reason: what the item's report says."""

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
        self, source: str, *, seed: int, thorough: Thorough | None = None, log: Path | None = None
    ) -> Measurement:
        """Run *source* once, with its progress on the live line."""
        limit = self.limit or self.experiment.limit
        with LiveLine(self.config, self.name) as live:
            run = self.experiment.measure(
                source, seed=seed, limit=limit, thorough=thorough, log=log, on_line=live.update
            )
        kind = [("trust", run.trust), ("sandbox", run.sandbox)]
        self.user_properties += [note for note in kind if note not in self.user_properties]
        return run

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
        if isinstance(error, Unmet):
            return Compact(str(error), error.lines)
        if isinstance(error, RunFailed):
            return Compact(str(error), error.tail)
        if isinstance(error, (NotKept, Refused, Unusable, Broken, baseline.Unreadable)):
            return Compact(str(error), ())
        return None


class Baseline(ExperimentItem):
    """The committed script, measured again: its stored figure has to reproduce."""

    measured: tuple[Measurement, ...] = ()

    def runtest(self) -> None:
        """Measure once and compare; under ``--autoresearch`` measure a new platform several times."""
        experiment = self.experiment
        record, blob = experiment.record(), experiment.repository.blob_of(experiment.repository.script)
        if record is not None and record.blob == blob:
            self._reproduce(record)
        elif experiment.settings.research:
            seeds = range(1, BASELINE_RUNS + 1)
            self.measured = tuple(self.measure(experiment.script(), seed=seed) for seed in seeds)
            spread = judge.Noise.of([run.score for run in self.measured]).spread
            self._pass(f"spread {figure(spread)} in {BASELINE_RUNS} runs")
        else:
            raise self._unknown(record)

    def _reproduce(self, record: baseline.Record) -> None:
        seed = 1 + max((run.seed for run in record.measurements), default=0)
        run = self.measure(self.experiment.script(), seed=seed)
        self.measured = (run,)
        tolerance = record.tolerance
        if abs(run.score - record.mean) > tolerance:
            raise Unmet(
                f"{record.metric} {figure(run.score)}: "
                f"the baseline of {figure(record.mean)} does not reproduce",
                f"stored      {exact(record.mean)}, the mean of {len(record.measurements)}",
                f"measured    {exact(run.score)}",
                f"difference  {run.score - record.mean:+.6g}",
                f"tolerance   {exact(tolerance)}, from a spread of {exact(record.noise.spread)}",
            )
        self._pass(f"stored {figure(record.mean)} ± {figure(tolerance)}")

    def _pass(self, reason: str) -> None:
        score = mean_score(self.measured)
        self.note(**{self.experiment.settings.metric: score, "runs": len(self.measured)})
        self.autoresearch_outcome = "passed", f"{figure(score)}, {reason}"

    def _unknown(self, record: baseline.Record | None) -> Unmet:
        what = "this platform" if record is None else f"this version of {self.path.name}"
        return Unmet(
            f"no baseline is known for {what}",
            MEASURE,
            *(f"{key:<12}  {value}" for key, value in self.experiment.platform.items()),
        )


class Candidate(ExperimentItem):
    """The working tree's script: it has to beat the baseline."""

    def runtest(self) -> None:
        """Measure once; pass if the score beats the baseline by more than the noise."""
        experiment = self.experiment
        repository = experiment.repository
        record = experiment.record()
        if record is None:
            raise Unmet("no baseline is known for this platform", MEASURE)
        if repository.blob_in_tree(repository.script) == record.blob:
            pytest.skip(f"{self.path.name} is the baseline")
        run = self.measure(read(self.path), seed=0)
        self.note(**{record.metric: run.score})
        judgement = record.judge(run.score, experiment.settings.direction)
        if judgement.verdict != "kept":
            raise Unmet(
                f"{record.metric} {figure(run.score)}: the baseline of {figure(record.mean)} is not beaten",
                f"baseline    {exact(record.mean)}",
                f"measured    {exact(run.score)}",
                f"difference  {judgement.reason}",
            )
        self.autoresearch_outcome = "passed", f"{figure(run.score)}, {judgement.reason}"


class NotKept(Exception):
    """A trial whose verdict is not ``kept``: to pytest a failure, to the loop a result."""


class Trial(ExperimentItem):
    """One turn of the loop: call measures and judges, teardown commits or drops.

    Teardown runs after Ctrl-C too, and a trial without a decision by then is dropped.
    """

    decision: Decision | None = None

    def __init__(self, *, proposal: Proposal, number: int, campaign: Campaign, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.proposal = proposal
        self.number = number
        self.campaign = campaign

    def setup(self) -> None:
        """Refuse to go on when somebody else has changed what the campaign stands on."""
        super().setup()
        self.campaign.check_ground()

    def runtest(self) -> None:
        """Decide on the proposal.

        Raises:
            NotKept: always but for a kept trial.
        """
        self.decision = self._decide()
        self.autoresearch_outcome = self.decision.verdict, self.decision.reason
        self.note(trial=self.number, description=self.proposal.description)
        self.note(verdict=self.decision.verdict, reason=self.decision.reason)
        for run in self.decision.measurements:
            self.note(**{self.experiment.settings.metric: run.score})
        if self.decision.verdict != "kept":
            raise NotKept(self.decision.reason)

    def _decide(self) -> Decision:
        experiment = self.experiment
        try:
            check(self.proposal.source, experiment.script(), experiment.device, experiment.fixed)
            self._check_untried()
            run = self.measure(
                self.proposal.source,
                seed=self.number * 100,
                thorough=lambda score: self._judge(score).verdict == "kept",
                log=self.campaign.log(self.number),
            )
        except (Refused, ScoreRefused) as error:
            return Decision("refused", str(error))
        except TimedOut as error:
            return Decision("timeout", str(error))
        except Crashed as error:
            return Decision("crashed", str(error))
        judgement = self._judge(run.score)
        return Decision(judgement.verdict, f"{figure(run.score)}, {judgement.reason}", (run,))

    def _judge(self, score: float) -> Judgement:
        return self.campaign.incumbent.judge(score, self.experiment.settings.direction)

    def _check_untried(self) -> None:
        blob = self.experiment.repository.blob(self.proposal.source)
        if earlier := self.campaign.ledger.trial_with(blob):
            msg = f"the same script as trial {earlier.number}"
            raise Refused(msg)

    def teardown(self) -> None:
        """Commit the decision; a trial that was cut short leaves nothing."""
        if self.decision is not None:
            self.campaign.conclude(self.number, self.proposal, self.decision)


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
