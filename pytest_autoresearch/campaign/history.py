"""A campaign as its refs tell it, read without a lock, a checkout or an experiment."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Self, cast

from pytest_autoresearch.campaign import baseline
from pytest_autoresearch.campaign.baseline import Baseline, Claim
from pytest_autoresearch.campaign.git import Commit, Repository, missing
from pytest_autoresearch.campaign.refs import CampaignRefs, padded
from pytest_autoresearch.errors import BaselineFormatError, RepositoryError
from pytest_autoresearch.judging.judge import JudgePolicy
from pytest_autoresearch.judging.pruning import CurvePair, Margins, Points, PruningBacktest, backtest
from pytest_autoresearch.judging.state import JudgeState
from pytest_autoresearch.records.measurement import Measurement
from pytest_autoresearch.records.proposal import Usage
from pytest_autoresearch.records.spec import Direction, ExperimentSpec
from pytest_autoresearch.records.trailers import parse_measurements, parse_trial, trailers_of
from pytest_autoresearch.records.trial import Trial
from pytest_autoresearch.source.files import digest

SOFT_LIMIT = 1.5  # of the start's memory, unless the user names another
OTHER_TAG = "choose another --autoresearch-tag"


@dataclasses.dataclass(frozen=True, slots=True)
class CampaignHeader:
    """What a campaign started with: its first commit, ``0000``."""

    commit: str
    start: str
    """The commit that the campaign started from, the parent of the header."""
    files: Mapping[str, str]
    """The editable files, by path from the experiment's folder."""
    tree: str
    """The id of the git tree of the files."""
    metric: str
    direction: Direction
    platform: Mapping[str, str]
    measurements: tuple[Measurement, ...]
    """The runs that the campaign started with."""
    baseline: Baseline
    """The estimate and the noise that the campaign started with."""

    @property
    def runs(self) -> tuple[Measurement, ...]:
        """Its runs, and those that the score of the files was known from before."""
        return tuple(dict.fromkeys((*self.baseline.measurements, *self.measurements)))

    @property
    def memory_mb(self) -> float | None:
        """Peak memory of the runs in MiB, None if they do not say."""
        return max((run.memory_mb for run in self.runs if run.memory_mb), default=None)


@dataclasses.dataclass(frozen=True, slots=True)
class CampaignHistory:
    """Everything that is stored of a campaign, up to its latest trial."""

    tag: str
    header: CampaignHeader
    trials: tuple[Trial, ...]
    """Every trial, in the order of their numbers, which may have gaps."""
    incumbent: Baseline
    """The record of the best version so far."""
    replaced: Mapping[int, Baseline]
    """The records of versions that somebody committed by hand in the incumbent's place.

    The key is the number of the first trial that was judged against the version, or is going to be.
    """

    @classmethod
    def load(cls, repository: Repository, spec: ExperimentSpec, tag: str) -> Self:
        """Read a campaign.

        Raises:
            RepositoryError: there is none, it is not all there, or holds what no campaign wrote.
        """
        refs = CampaignRefs(tag)
        commits, tip = read_commits(repository, refs)
        if 0 not in commits:
            raise RepositoryError(f"there is no campaign {tag}", hint=f"{refs.header} is not here")
        start = commits.pop(0)
        bases = [parent_of(commit) for commit in commits.values()]
        tip = tip or start.name
        editable = repository.editable([start.name, *bases, tip], spec)
        trees = {
            revision: repository.tree_of_blobs(_whole(revision, blobs))
            for revision, blobs in editable.items()
        }
        reader = _Reader(repository, spec, tag, *_platform_of(start))
        header = reader.header(start, trees[start.name])
        trials = tuple(parsed(commit, refs) for commit in commits.values())
        replaced, latest, tree = dict[int, Baseline](), start.name, header.tree
        for trial, base in zip(trials, bases, strict=True):
            if trees[base] != tree:
                replaced[trial.number], latest, tree = reader.baseline(base), base, trees[base]
            if trial.is_kept:
                latest, tree = trial.commit, trial.tree
        incumbent = reader.find(tip)
        if incumbent is None or incumbent.tree != trees[tip]:  # a version that was never measured
            incumbent = reader.baseline(latest)
        elif incumbent.tree != tree:
            replaced[1 + max(commits, default=0)] = incumbent
        return cls(tag, header, trials, incumbent, replaced)

    def appended(self, trial: Trial, incumbent: Baseline) -> Self:
        """Return the history after another trial, and with the incumbent after it."""
        return dataclasses.replace(self, trials=(*self.trials, trial), incumbent=incumbent)

    @property
    def refs(self) -> CampaignRefs:
        """The names of its refs."""
        return CampaignRefs(self.tag)

    @property
    def next_number(self) -> int:
        """The number of the next trial."""
        return 1 + max((trial.number for trial in self.trials), default=0)

    @property
    def kept(self) -> tuple[Trial, ...]:
        """The trials that became the incumbent, in turn."""
        return tuple(trial for trial in self.trials if trial.is_kept)

    @property
    def usage(self) -> Usage:
        """What the proposals of all trials have cost."""
        total = Usage()
        for trial in self.trials:
            total += trial.usage
        return total

    def trial_like(self, files: Mapping[str, str]) -> int | None:
        """Return the first trial whose editable files do what *files* do, 0 for the start; None if none."""
        wanted = digest(files)
        if wanted == digest(self.header.files):
            return 0
        return next((trial.number for trial in self.trials if trial.digest == wanted), None)

    # -- the claim --------------------------------------------------------------------------------

    @property
    def claim(self) -> Claim | None:
        """What this campaign has claimed of its incumbent."""
        return self.incumbent.claim if self.incumbent.start == self.header.start else None

    @property
    def is_to_claim(self) -> bool:
        """Whether something was gained, and how much has not been measured yet."""
        return bool(self.kept) and self.incumbent.tree != self.header.tree and self.claim is None

    # -- the judge --------------------------------------------------------------------------------

    def judge_state(self, policy: JudgePolicy) -> JudgeState:
        """Return the state of the judge before the next trial: every trial is replayed from the header on."""
        known = self.header.baseline
        state = JudgeState.initial(policy, known.estimate, known.noise)
        for trial in self.trials:
            state = after_trial(self._on_incumbent(state, trial.number), trial)
        return self._on_incumbent(state, self.next_number)

    def _on_incumbent(self, state: JudgeState, number: int) -> JudgeState:
        record = self.replaced.get(number)
        return (
            state
            if record is None
            else dataclasses.replace(state, incumbent=record.estimate, noise=record.noise)
        )

    # -- memory and pruning -----------------------------------------------------------------------

    def memory_soft_limit(self, asked: float | None) -> float | None:
        """Return the MiB that a run should stay below: *asked*, else a multiple of the start's, if known."""
        memory = self.header.memory_mb
        return SOFT_LIMIT * memory if asked is None and memory is not None else asked

    @property
    def curve(self) -> Points:
        """The loss curve of the incumbent."""
        return self.incumbent.measurements[0].curve

    def margins(self, noise_std: float) -> Margins:
        """Return what the trials teach about when a run is hopeless; *noise_std* is of one run's score."""
        return Margins.learned(self.curve_pairs(), self._repeats, noise_std, self.header.direction)

    def backtest(self, noise_std: float) -> PruningBacktest:
        """Return what pruning would have done to the trials that ran to their end."""
        return backtest(self.curve_pairs(), self._repeats, noise_std, self.header.direction)

    @property
    def _repeats(self) -> list[Points]:
        return [run.curve for run in self.header.runs]

    def curve_pairs(self) -> Iterator[CurvePair]:
        """Yield the loss curve of each scored trial beside that of the incumbent at the time."""
        incumbent: Points = self.header.runs[0].curve
        for trial in self.trials:
            if trial.is_scored and trial.score is not None:
                curve = trial.measurements[0].curve
                yield CurvePair(curve, trial.score, incumbent, trial.incumbent_score, trial.is_kept)
            if trial.is_kept:
                incumbent = trial.measurements[0].curve


@dataclasses.dataclass(frozen=True, slots=True)
class _Reader:
    """Reads records of one campaign's platform and metric out of commits."""

    repository: Repository
    spec: ExperimentSpec
    tag: str
    platform: Mapping[str, str]
    metric: str

    def find(self, revision: str) -> Baseline | None:
        """Return the record in a commit; None if there is none that can be read."""
        try:
            return self._read(revision)
        except BaselineFormatError:
            return None

    def baseline(self, revision: str) -> Baseline:
        """Return the record in a commit."""
        try:
            record = self._read(revision)
        except BaselineFormatError as error:
            msg = f"{self.tag} was started with another version ({error})"
            raise RepositoryError(msg, hint=OTHER_TAG) from error
        if record is None:
            raise RepositoryError(f"{revision} holds no baseline of {self.tag}", hint=OTHER_TAG)
        return record

    def _read(self, revision: str) -> Baseline | None:
        records = baseline.records_at(self.repository, self.spec, revision)
        return baseline.find(records, self.platform, self.metric)

    def header(self, commit: Commit, tree: str) -> CampaignHeader:
        """Return the header in *commit*, whose files have the id *tree*."""
        trailers = trailers_of(commit.message)
        try:
            measurements = parse_measurements(trailers)
        except (TypeError, ValueError) as error:
            raise _no_header(commit, error) from error
        return CampaignHeader(
            commit=commit.name,
            start=commit.parent or commit.name,  # in a shallow clone the header itself has to do
            files=self.repository.files_at(commit.name, self.spec),
            tree=tree,
            metric=self.metric,
            direction=cast("Direction", trailers.get("Direction", ["minimize"])[0]),
            platform=self.platform,
            measurements=measurements,
            baseline=self.baseline(commit.name),
        )


@dataclasses.dataclass(frozen=True, slots=True)
class StoredTrial:
    """One trial as its refs hold it, read without the rest of its campaign."""

    name: str
    """The tag and the number, ``mar5/0007``."""
    trial: Trial
    files: Mapping[str, str]
    """The proposed editable files, by path from the experiment's folder."""
    platform: Mapping[str, str]
    """The platform of its campaign."""
    baseline: Baseline | None
    """The record that its campaign had then; None if somebody has committed another baseline.json by hand."""

    @classmethod
    def load(cls, repository: Repository, spec: ExperimentSpec, tag: str, number: int) -> Self:
        """Read a trial.

        Raises:
            RepositoryError: there is none, it had no proposal, or it is of another experiment or metric.
        """
        refs, name = CampaignRefs(tag), f"{tag}/{padded(number)}"
        commits = {commit.ref: commit for commit in repository.commits(refs.trial(number), refs.header)}
        if not number or len(commits) < 2:
            numbers = [refs.number_of(ref) for ref in repository.refs(refs.numbered)]
            last = max(numbers, default=0)
            has = f"the last trial of {tag} is {padded(last)}" if last else f"no trials of {tag} are here"
            raise RepositoryError(f"there is no trial {name}: {has}")
        header, commit = commits[refs.header], commits[refs.trial(number)]
        now = {"Experiment": repository.path_of(spec.path), "Metric": spec.metric}
        for key, value in now.items():
            if (then := trailers_of(header.message).get(key, ["unknown"])[0]) != value:
                raise RepositoryError(f"{name} is of {key.lower()} {then}, and this one is {value}")
        try:
            trial = parse_trial(commit.message, commit.name)
        except ValueError as error:
            raise RepositoryError(f"{name} is no trial of this version: {error}") from error
        if trial.unanswered:
            raise RepositoryError(f"no agent had a proposal for trial {name}: there is nothing to measure")
        reader = _Reader(repository, spec, tag, *_platform_of(header))
        files = repository.files_at(commit.name, spec)
        return cls(name, trial, files, reader.platform, reader.find(commit.name))


class CampaignCommits(NamedTuple):
    """The commits that a campaign's refs lead to."""

    trials: dict[int, Commit]
    """The trials by number, in order, the header by 0."""
    tip: str | None
    """The tip of the branch, None if there is no branch."""


def read_commits(repository: Repository, refs: CampaignRefs) -> CampaignCommits:
    """Return the commits that a campaign's refs lead to.

    Raises:
        RepositoryError: a ref is torn, or no trial's.
    """
    commits = {commit.ref: commit for commit in repository.commits(refs.commits, refs.head)}
    tip, _ = commits.pop(refs.head, None), commits.pop(refs.claim, None)
    trials = {refs.number_of(ref): commit for ref, commit in commits.items()}
    return CampaignCommits(dict(sorted(trials.items())), None if tip is None else tip.name)


def parent_of(commit: Commit) -> str:
    """Return a revision for the parent of a trial; a shallow clone has commits without their parents."""
    return commit.parent or f"{commit.ref}^"


def parsed(commit: Commit, refs: CampaignRefs) -> Trial:
    """Return the trial that *commit* holds.

    Raises:
        RepositoryError: it holds none.
    """
    try:
        return parse_trial(commit.message, commit.name)
    except ValueError as error:
        raise RepositoryError(f"a ref below {refs.root}/ is no trial: {error}") from error


def after_trial(state: JudgeState, trial: Trial) -> JudgeState:
    """Return the state of the judge after *trial*."""
    judged = trial.measurements if trial.is_scored else ()
    return state.after(
        _scores(judged),
        _scores(trial.incumbent_runs),
        kept=trial.is_kept,
        code_size_change=trial.code_size_change,
    )


def _scores(runs: Sequence[Measurement]) -> list[float]:
    return [run.score for run in runs]


def _whole(revision: str, blobs: Mapping[str, str] | None) -> Mapping[str, str]:
    if blobs is None:
        raise missing(revision)
    return blobs


def _platform_of(header: Commit) -> tuple[Mapping[str, str], str]:
    """Return platform and metric of a campaign."""
    trailers = trailers_of(header.message)
    try:
        platform = dict(json.loads(trailers["Platform"][0]))
        return platform, trailers["Metric"][0]
    except (KeyError, TypeError, ValueError) as error:
        raise _no_header(header, error) from error


def _no_header(commit: Commit, reason: object) -> RepositoryError:
    return RepositoryError(f"{commit.ref} is no header of a campaign: {reason}")
