"""The test ``baseline``: the committed version, measured again."""

from __future__ import annotations

from pytest_autoresearch.campaign.baseline import Baseline, Claim
from pytest_autoresearch.errors import AssertionFailure
from pytest_autoresearch.judging.noise import Noise
from pytest_autoresearch.loop.loop import fresh_seed
from pytest_autoresearch.plugin.items import ExperimentItem
from pytest_autoresearch.records.measurement import Measurement, format_exact, format_score, mean_score
from pytest_autoresearch.text import single_line

MEASURE = "measure one:  pytest --autoresearch --autoresearch-trials=0"
FIRST_RUNS = 3  # of a new platform: the fewest that give a noise worth the name


class BaselineItem(ExperimentItem):
    """The committed version, measured again: its stored score has to reproduce."""

    measured: tuple[Measurement, ...] = ()

    def runtest(self) -> None:
        """Measure once and compare; under ``--autoresearch`` measure a new platform several times.

        Raises:
            AssertionFailure: the score does not reproduce, or none is known.
        """
        experiment = self.experiment
        stored = experiment.baseline()
        if stored is not None and stored.tree == experiment.repository.tree_of(experiment.files):
            self._reproduce(stored)
        elif experiment.settings.research:
            files, caches = experiment.files, experiment.first_cache_use
            seeds = range(1, FIRST_RUNS + 1)
            self.measured = tuple(self.measure(files, seed, cache_use=caches) for seed in seeds)
            noise = Noise.of([run.score for run in self.measured])
            self._pass(f"noise {format_score(noise.std)} in {FIRST_RUNS} runs")
        else:
            raise self._unknown(stored)

    def _reproduce(self, stored: Baseline) -> None:
        experiment, start, lacks = self.experiment, None, ""
        if stored.start is not None and not experiment.settings.research:  # which makes a claim in the end
            if experiment.repository.tip_of(stored.start) is None:
                lacks = "; the start is not in this clone: run 'git fetch --unshallow'"
            else:
                start = experiment.repository.files_at(stored.start)
        run = self.measure(
            experiment.files,
            fresh_seed(),
            score_claim_split=start is not None,
            cache_use=experiment.first_cache_use,
            overheads=stored.overheads,
        )
        known = stored.estimate.mean
        self.measured = (run,)
        if abs(run.score - known) > stored.tolerance:
            raise AssertionFailure(
                f"{stored.metric} {format_score(run.score)}: the baseline of {format_score(known)} "
                "does not reproduce",
                f"stored      {format_exact(known)} ± {format_exact(stored.estimate.std)}",
                f"measured    {format_exact(run.score)}",
                f"difference  {run.score - known:+.6g}",
                f"tolerance   {format_exact(stored.tolerance)}, noise {format_exact(stored.noise.std)}",
            )
        reason = f"stored {format_score(known)} ± {format_score(stored.tolerance)}{lacks}"
        if start is not None:
            reason = f"{reason}; {self._gain_since(start, run, stored)}"
        self._pass(reason)

    def _gain_since(self, start: dict[str, str], run: Measurement, stored: Baseline) -> str:
        """Measure what the campaign began with beside *run*, and return what was gained."""
        try:
            before = self.measure(start, run.seed, score_claim_split=True, overheads=stored.overheads)
        except AssertionFailure as error:
            return f"its campaign's start no longer runs: {error}"
        return f"{Claim.of((before,), (run,), stored.noise)} from its campaign's start"

    def _pass(self, reason: str) -> None:
        score = mean_score(self.measured)
        self.note(**{self.experiment.spec.metric: score, "runs": len(self.measured)})
        self.autoresearch_outcome = "passed", f"{format_score(score)}, {reason}"

    def _unknown(self, stored: Baseline | None) -> AssertionFailure:
        what = "this platform" if stored is None else f"this version of {self.path.name}"
        return AssertionFailure(
            f"no baseline is known for {what}",
            MEASURE,
            *(f"{key:<12}  {single_line(value)}" for key, value in self.experiment.site.platform.items()),
        )
