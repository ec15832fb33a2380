"""One campaign: its branch, its refs, its ledger and its incumbent.

The refs are the truth. ``refs/autoresearch/<tag>/0000`` is the opening: the script and the platform
that the campaign began with, and what they measured. ``…/0001`` and up are the trials, each a commit
on top of the incumbent it was judged against; the kept ones are the branch. ``…/claim`` is the last claim.
What is believed of the incumbent follows from these: from the opening, by every trial in turn.
"""

from __future__ import annotations

import dataclasses
import json
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_autoresearch.campaign import baseline, checks
from pytest_autoresearch.campaign.costs import CostTotal
from pytest_autoresearch.campaign.git import Commit, Repository
from pytest_autoresearch.campaign.ledger import Ledger
from pytest_autoresearch.campaign.logs import Logs
from pytest_autoresearch.campaign.results import Results, baseline_row, trial_row
from pytest_autoresearch.errors import BaselineFormatError, RepositoryError
from pytest_autoresearch.judging.judge import Direction, Judgement
from pytest_autoresearch.judging.pruning import CurvePair, Margins, Points, PruningBacktest, backtest
from pytest_autoresearch.judging.state import JudgePolicy, JudgeState
from pytest_autoresearch.records.measurement import Measurement, format_exact, format_score, mean_score
from pytest_autoresearch.records.trailers import (
    INCUMBENT_RUN,
    measurement_trailers,
    parse_measurements,
    parse_trial,
    trailer_name,
    trailers_of,
    trial_message,
)
from pytest_autoresearch.records.trial import Decision, Trial
from pytest_autoresearch.runs.experiment import FIXED, RECORDS, Experiment
from pytest_autoresearch.source import canonical, constants
from pytest_autoresearch.source.validation import LARGEST
from pytest_autoresearch.system.files import writing
from pytest_autoresearch.system.signals import deferred
from pytest_autoresearch.system.text import single_line

if TYPE_CHECKING:
    from pytest_autoresearch.records.proposal import Proposal


CLAIM = "claim"  # the ref's name
PACKED_EVERY = 500  # trials
SOFT_LIMIT = 1.5  # of the start's memory, unless the user names another


class Campaign:
    """What is known under one tag, and the only writer of it.

    It is looked at first, then opened, which checks out its branch, and begun once the baseline is measured.
    """

    begun = False
    incumbent: baseline.Baseline
    ledger: Ledger
    start: str
    """The script that the campaign began with."""
    start_blob: str
    """Its git blob."""
    start_score: float
    """What was believed of its score at the time."""
    start_runs: tuple[Measurement, ...]
    """Its runs at the time, and those that it had been known from."""
    standing: JudgeState
    """After the last trial."""

    def __init__(self, repository: Repository, tag: str, state: Path, results: Path) -> None:
        self.healed: list[str] = []
        """What was put right when it was opened and begun, a line each."""
        self._read: dict[int, Commit] | None = None
        self.repository = repository
        self.tag = tag
        self.branch = f"autoresearch/{tag}"
        self._refs = f"refs/autoresearch/{tag}/"
        self._state = state
        self._results_path = results
        self._records = repository.beside(RECORDS)

    # -- opening ----------------------------------------------------------------------------------

    def check_clean(self) -> None:
        """Look whether the working tree holds nothing but what is committed, and nothing is in the way.

        Raises:
            RepositoryError: it does, and it is not a keep that was killed half way; or something is.
        """
        repository, trials = self.repository, self._commits()
        checks.check_room(repository, self.tag, self._state)
        checks.check_seen(repository, self._records, repository.script, repository.beside(FIXED))
        if trials:
            checks.check_whole(repository, self.tag, trials)
        self._left_half_way()
        if self._results_path.exists() and not self._is_results():
            msg = f"{self._results_path.name} is not a campaign's: move it away first"
            raise RepositoryError(msg)

    def _is_results(self) -> bool:
        """Tell whether ``results.tsv`` can be written over: its first row is the opening of a campaign."""
        if not self._results_path.is_file():
            return False
        rows = self._results_path.read_text(encoding="utf-8", errors="replace").splitlines()
        if len(rows) < 2:
            return not rows
        openings = self.repository.commits("refs/autoresearch/*/0000")
        return rows[1].partition("\t")[0] in {opening.name[:7] for opening in openings}

    def _left_half_way(self) -> list[str]:
        """Return the files of a keep that was killed half way.

        Raises:
            RepositoryError: other files have changed.
        """
        changed = self.repository.changes()
        if changed and not self._is_unfinished_keep(changed):
            msg = f"uncommitted changes in {', '.join(changed[:3])}: commit or stash them first"
            raise RepositoryError(msg)
        return changed

    def _is_unfinished_keep(self, changed: list[str]) -> bool:
        """Tell whether the branch has moved to a commit of ours, and the working tree has not followed."""
        repository = self.repository
        if repository.branch() != self.branch or not {repository.script, self._records}.issuperset(changed):
            return False
        head = repository.head()
        known = {commit.name for commit in repository.commits(f"{self._refs}*")}
        own = "Trial" in trailers_of(repository.message(head)) and repository.is_own(head)
        if head not in known and not own:
            return False  # nor a baseline that was measured anew, or a keep, whose ref was not written
        return all(repository.blob_in_tree(path) == repository.blob_of(path, "HEAD^") for path in changed)

    @property
    def revision(self) -> str:
        """Where the campaign goes on: the tip of its branch or, for a new tag, what is checked out."""
        tip = self.repository.tip_of(f"refs/heads/{self.branch}")
        return self.repository.head() if tip is None else tip

    def open(self, experiment: Experiment) -> None:
        """Check out the campaign's branch: at its tip or, for a new tag, here.

        Raises:
            RepositoryError: the campaign was begun on another platform, or for another metric; git refuses.
        """
        self._experiment = experiment
        self.repository.tidy()
        opening = self.repository.tip_of(self._refs + "0000")
        if opening is not None:
            self._check_opening(opening)
        if changed := self._left_half_way():
            self.repository.refresh(*changed)
            self.healed.append(f"{', '.join(changed)} brought to what the branch's last commit had stored")
        if self.repository.branch() != self.branch:
            exists = self.repository.tip_of(f"refs/heads/{self.branch}") is not None
            self.repository.switch(self.branch, create=not exists)
        self._tip = self.repository.head()
        keep = experiment.settings.keep_logs
        self._logs = Logs(self.repository, f"{self._refs}log/", self._state / "logs", keep)
        try:
            self.books = CostTotal(self.repository, f"{self._refs}books/paid")
        except ValueError as error:
            relief = f"delete it with 'git update-ref -d {self._refs}books/paid'"
            raise RepositoryError(f"{self._refs}books/paid is no sum of costs ({error}): {relief}") from error
        self._finish_keep()

    @property
    def is_at_start(self) -> bool:
        """Whether the branch, once open, still holds the script that the campaign began with."""
        opening, blob_of = self._refs + "0000", self.repository.blob_of
        is_new = self.repository.tip_of(opening) is None
        return is_new or blob_of(self.repository.script, opening) == blob_of(self.repository.script)

    def _check_opening(self, opening: str) -> None:
        """Look whether the campaign is still what it was begun as, and stands on its own figures."""
        checks.check_terms(self.tag, trailers_of(self.repository.message(opening)), self._terms)
        last = f"{self._refs}{max(self._commits()):04d}"
        checks.check_record(
            self.repository,
            self._records,
            self.revision,
            opening,
            latest=[self._refs + CLAIM, last, f"{last}^", opening],
            find=self._record_in,
        )

    def begin(self, runs: tuple[Measurement, ...]) -> None:
        """Take the baseline, just measured in *runs*, as the incumbent, and read what was tried before.

        Raises:
            RepositoryError: git refuses, or holds what no campaign wrote.
        """
        experiment, opening = self._experiment, self.repository.tip_of(self._refs + "0000")
        record, blob = experiment.record(), self.repository.blob_of(self.repository.script)
        assert blob is not None
        self._fresh: tuple[Measurement, ...] = ()
        with deferred():
            if record is None or record.blob != blob:
                metric = experiment.settings.metric
                record = baseline.Baseline.measured(experiment.platform, metric, self._tip, blob, runs)
                self._commit_baseline(record, runs, is_opening=opening is None)
            elif opening is None:
                record = record.begun(runs)
                self._commit_baseline(record, runs, is_opening=True)
            else:
                self._fresh = runs  # the next trial's to store
        self.incumbent = record
        self._load()
        if self._logs.start(self.next_number):
            self.healed.append(f"trial {self.next_number} was stopped before its verdict: its log is dropped")
        self.begun = True

    def _finish_keep(self) -> None:
        """Write the ref of a trial that is the tip of the branch: git moves one ref after the other."""
        trailers = trailers_of(self.repository.message(self._tip))
        number = trailers.get("Trial", [""])[0]
        # Who picks a trial of another campaign commits it under their own name.
        ours = trailers.get("Verdict") == ["kept"] and self.repository.is_own(self._tip)
        if not ours or not re.fullmatch(r"[1-9]\d{,8}", number):
            return
        refs = self.repository.refs("refs/autoresearch/")
        ref, before = (f"{self._refs}{which:04d}" for which in (int(number), int(number) - 1))
        if ref not in refs and before in refs and self._tip not in refs.values():  # of another campaign
            self.repository.move({ref: (None, self._tip), **self._logs.moves(int(number))})
            self._read = None
            self.healed.append(f"trial {number} was kept, and now has its ref too")

    @property
    def _terms(self) -> dict[str, str]:
        """What stays the same from a campaign's opening on, as its trailers say it."""
        settings = self._experiment.settings
        return {
            "Experiment": self.repository.script,
            "Metric": settings.metric,
            "Direction": settings.direction,
            "Platform": _json(self._experiment.platform),
        }

    def _commit_baseline(
        self, record: baseline.Baseline, runs: tuple[Measurement, ...], *, is_opening: bool
    ) -> None:
        refs = {self._refs + "0000": None} if is_opening else {}
        self._commit_record(record, self._opening_message(runs), refs)

    def _commit_record(
        self, record: baseline.Baseline, message: str, others: Mapping[str, str | None]
    ) -> None:
        """Move the branch to a commit that stores *record*, and with it *others* from where they are."""
        text = baseline.write(self._experiment.records(), record)
        commit = self.repository.commit(self._tip, {self._records: text}, message)
        refs = {f"refs/heads/{self.branch}": self._tip, **others}
        self.repository.move({ref: (old, commit) for ref, old in refs.items()})
        self._read = None
        self._tip = commit
        self.repository.refresh(self._records)

    def _opening_message(self, runs: tuple[Measurement, ...]) -> str:
        platform, metric = self._experiment.platform, self._experiment.settings.metric
        name = platform.get("device_name", platform.get("machine", "this machine"))
        score = mean_score(runs)
        lines = [
            f"Measure the baseline on {single_line(name, 60)}",
            "",
            f"{metric} {format_score(score)} in {len(runs)} {'run' if len(runs) == 1 else 'runs'}",
            "",
            "Trial: 0",
            f"{trailer_name(metric)}: {format_exact(score)}",
            *(f"{name}: {value}" for name, value in self._terms.items()),
            *measurement_trailers(runs),
        ]
        return "\n".join([*lines, ""])

    def _load(self) -> None:
        """Read start and ledger from the refs, and write the files that follow from them."""
        metric = self._experiment.settings.metric
        commits = self._commits()
        self._read = None  # they are in the ledger from now on
        opening = commits.pop(0)
        trials = [commits[number] for number in sorted(commits)]
        try:
            measured = parse_measurements(trailers_of(opening.message))
        except (TypeError, ValueError) as error:
            raise RepositoryError(f"{opening.ref} is no opening of a campaign: {error}") from error
        self.start = self.repository.committed(self.repository.script, opening.name) or ""
        self.start_blob = self.repository.blob(self.start)
        self._digests = {canonical.digest(self.start): 0}
        entries = self._entries(trials)
        self._load_standing(opening.name, measured, entries, [trial.parent for trial in trials])
        with writing(self._state.parent / ".gitignore"):
            self._state.mkdir(parents=True, exist_ok=True)
            (self._state.parent / ".gitignore").write_text("*\n", encoding="utf-8")
        self.ledger = Ledger(self._state / "ledger.jsonl", entries)
        rows = [baseline_row(opening.name, measured), *map(trial_row, entries)]
        self._results = Results(self._results_path, metric, rows)
        for file, name in ((self.ledger, "ledger.jsonl"), (self._results, "results.tsv")):
            if file.was_wrong:
                self.healed.append(f"{name} differed from the refs, and is written anew")

    def _load_standing(
        self, opening: str, measured: tuple[Measurement, ...], entries: list[Trial], parents: list[str]
    ) -> None:
        """Come to what is believed now, from the opening by every trial in turn."""
        record = self._record_of(opening)
        self.start_score = record.belief.mean
        self.start_runs = tuple(dict.fromkeys((*record.measurements, *measured)))
        terms = JudgePolicy.of(self._experiment.settings)
        self.standing = JudgeState.opening(terms, record.belief, record.noise)
        version, versions = record.blob, list(dict.fromkeys(parents))
        blobs = dict(zip(versions, self.repository.blobs_of(self.repository.script, versions), strict=True))
        for entry, parent in zip(entries, parents, strict=True):
            incumbent = blobs[parent]
            if incumbent != version:
                self._replace_incumbent(self._record_of(parent))
            self.standing = self._standing_after(entry)
            version = entry.blob if entry.verdict == "kept" else incumbent
        if version != self.incumbent.blob:
            self._replace_incumbent(self.incumbent)

    def _record_in(self, revision: str) -> baseline.Baseline | None:
        """Return what a commit holds of this platform; raise BaselineFormatError if that cannot be told."""
        records = baseline.read(self.repository.committed(self._records, revision))
        return baseline.find(records, self._experiment.platform, self._experiment.settings.metric)

    def _record_of(self, revision: str) -> baseline.Baseline:
        relief = "choose another --autoresearch-tag"
        try:
            record = self._record_in(revision)
        except BaselineFormatError as error:
            raise RepositoryError(f"{self.tag} was begun with another version ({error}): {relief}") from error
        if record is None:
            raise RepositoryError(f"{revision} holds no baseline of {self.tag}: {relief}")
        return record

    def _replace_incumbent(self, record: baseline.Baseline) -> None:
        """Go on from a script that somebody has committed by hand in the incumbent's place."""
        self.standing = dataclasses.replace(self.standing, belief=record.belief, noise=record.noise)

    def _commits(self) -> dict[int, Commit]:
        """Return what the refs of the trials, by number, and of the opening, 0, point to."""
        if self._read is None:
            self._read = {
                self._number(commit.ref): commit
                for commit in self.repository.commits(f"{self._refs}*")
                if commit.ref != self._refs + CLAIM
            }
        return self._read

    def _number(self, ref: str) -> int:
        name = ref.removeprefix(self._refs)
        if not re.fullmatch(r"\d{4,}", name):
            msg = f"{ref} is no trial: delete it with 'git update-ref -d {ref}'"
            raise RepositoryError(msg)
        return int(name)

    def _entries(self, trials: Sequence[Commit]) -> list[Trial]:
        """Return the entries of all trials, in their order."""
        entries = []
        for trial in trials:
            try:
                entry = parse_trial(trial.message, trial.name)
            except ValueError as error:
                msg = f"a ref below {self._refs} is no trial: {error}"
                raise RepositoryError(msg) from error
            self._digests.setdefault(entry.digest, entry.number)
            entries.append(entry)
        return entries

    # -- trials -----------------------------------------------------------------------------------

    @property
    def next_number(self) -> int:
        """The number of the next trial."""
        return 1 + max((entry.number for entry in self.ledger.entries), default=0)

    def trial_like(self, source: str) -> int | None:
        """Return the first trial whose script does what *source* does, 0 for the start; None if none."""
        return self._digests.get(canonical.digest(source))

    def judge(
        self, scores: Sequence[float], incumbent_runs: Sequence[float], code_size_change: int
    ) -> Judgement:
        """Judge the next trial, as :meth:`Standing.judge` does."""
        return self.standing.judge(scores, self._incumbent_runs(incumbent_runs), code_size_change)

    def _incumbent_runs(self, incumbent_runs: Sequence[float]) -> list[float]:
        return [*(run.score for run in self._fresh), *incumbent_runs]

    @property
    def start_memory(self) -> float | None:
        """Peak memory of the start's runs in MiB, None if they do not say."""
        return max((run.memory_mb for run in self.start_runs if run.memory_mb), default=None)

    def memory_soft_limit(self) -> float | None:
        """Return the MiB that a run should stay below, None if nothing tells."""
        asked = self._experiment.settings.memory_soft_limit
        if asked is None and self.start_memory is not None:
            return SOFT_LIMIT * self.start_memory
        return asked

    def margins(self) -> Margins:
        """Return what the trials so far teach about when a run is hopeless."""
        margins = Margins(*self._prune_terms())
        for trial in self._past():
            margins.learn(trial)
        return margins

    def curve(self) -> Points:
        """Return the loss curve of the incumbent."""
        return self.incumbent.measurements[0].curve

    def replay(self) -> PruningBacktest:
        """Return what pruning would have done to the trials that ran to their end."""
        return backtest(self._past(), *self._prune_terms())

    def _prune_terms(self) -> tuple[list[Points], float, Direction]:
        direction = self._experiment.settings.direction
        return [run.curve for run in self.start_runs], self.standing.noise.spread, direction

    def _curves(self) -> list[Points]:
        """Return the loss curves of the incumbents in turn, the start's first."""
        kept = [entry.measurements for entry in self.ledger.entries if entry.verdict == "kept"]
        return [runs[0].curve for runs in (self.start_runs, *kept)]

    def _past(self) -> Iterator[CurvePair]:
        curves = iter(self._curves())
        incumbent = next(curves)
        for entry in self.ledger.entries:
            kept = entry.verdict == "kept"
            if entry.verdict in ("kept", "discarded") and entry.score is not None:
                curve = entry.measurements[0].curve
                yield CurvePair(curve, entry.score, incumbent, entry.incumbent_score, kept)
            if kept:
                incumbent = next(curves)

    def log(self, number: int) -> Path:
        """Return where the output of a trial goes."""
        return self._logs.path(number)

    def check_ground(self) -> None:
        """Look whether the campaign still stands on what it left.

        Raises:
            RepositoryError: somebody else has moved the branch, or changed the experiment's files.
        """
        repository = self.repository
        if repository.branch() != self.branch or repository.head() != self._tip:
            msg = f"{self.branch} is no longer checked out as the campaign left it: start again"
            raise RepositoryError(msg)
        own = {repository.script, self._records, repository.beside(FIXED)}
        if changed := own.intersection(repository.changes()):
            names = ", ".join(sorted(changed))
            raise RepositoryError(f"{names} changed during the campaign: commit or restore, and start again")

    def conclude(self, number: int, proposal: Proposal, decision: Decision) -> Trial:
        """Write a decided trial: its commit and, if kept, the branch, in one transaction; then the files.

        Raises:
            RepositoryError: somebody else has moved the branch, or written the trial; or has changed the
                experiment's files, and then the trial itself is written.
        """
        own = {self.repository.script, self._records}
        touched = own.intersection(self.repository.changes())
        with deferred():
            entry = self._commit(number, proposal, decision)
            self._fresh = ()
            self.ledger.entries.append(entry)  # it is stored, whatever becomes of the files
            try:
                self.ledger.write(entry)
                self._results.add(trial_row(entry))
            finally:
                if decision.verdict == "kept" and not touched:
                    self._follow(number)
            if number % PACKED_EVERY == 0:
                self.repository.pack()
        if touched:
            names = ", ".join(sorted(touched))
            raise RepositoryError(
                f"{names} changed during trial {number}, which is stored: restore and start again"
            )
        return entry

    def _follow(self, number: int) -> None:
        """Bring the working tree to a trial that was kept."""
        if self.repository.branch() != self.branch:
            raise RepositoryError(
                f"{self.branch} was left during trial {number}, which is stored: start again"
            )
        try:
            self.repository.refresh(self.repository.script, self._records)
        except RepositoryError as error:
            raise RepositoryError(
                f"trial {number} is stored, but not in the working tree: {error}"
            ) from error

    def _commit(self, number: int, proposal: Proposal, decision: Decision) -> Trial:
        repository, ref = self.repository, f"{self._refs}{number:04d}"
        source = proposal.source if _is_storable(proposal.source) else self._experiment.script()
        blob, incumbent_runs = repository.blob(source), self._fresh + decision.incumbent_runs
        entry = Trial(
            number=number,
            description=proposal.description,
            verdict=decision.verdict,
            reason=single_line(decision.reason, 400),
            commit="",
            blob=blob,
            # Rounded as the commit will hold it, so that a ledger that is rebuilt is the same.
            incumbent_score=float(
                format_exact(self.standing.measured([run.score for run in incumbent_runs]).mean)
            ),
            measurements=decision.measurements,
            constants=constants.values(source, self._experiment.device),
            digest=canonical.digest(source),
            incumbent_runs=incumbent_runs,
            code_size_change=decision.code_size_change,
            agent=proposal.agent,
            hypothesis=proposal.hypothesis,
            usage=proposal.usage,
            declined_by=proposal.declined_by,
            crashes=decision.crashes,
        )
        files = {repository.script: source}
        standing, record = self._standing_after(entry), self.incumbent
        if decision.verdict == "kept":
            record = dataclasses.replace(
                record,
                commit=ref,
                blob=blob,
                measurements=decision.measurements,
                belief=standing.belief,
                noise=standing.noise,
                start=self.start_blob,
                claim=None,
            )
            files[self._records] = baseline.write(self._experiment.records(), record)
        commit = repository.commit(self._tip, files, trial_message(entry, self._experiment.settings.metric))
        refs: dict[str, tuple[str | None, str | None]] = {ref: (None, commit), **self._logs.moves(number)}
        if decision.verdict == "kept":  # the branch first: where that is all that happens, the ref can follow
            refs = {f"refs/heads/{self.branch}": (self._tip, commit), **refs}
        repository.move(refs)
        self._logs.stored(number, refs)
        if decision.verdict == "kept":
            self.incumbent, self._tip = record, commit
        self.standing = standing
        self._digests.setdefault(entry.digest, number)
        return entry.written_as(commit)

    def _standing_after(self, entry: Trial) -> JudgeState:
        judged = entry.measurements if entry.verdict in ("kept", "discarded") else ()
        scores, incumbent_runs = ([run.score for run in runs] for runs in (judged, entry.incumbent_runs))
        return self.standing.after(
            scores, incumbent_runs, kept=entry.verdict == "kept", code_size_change=entry.code_size_change
        )

    # -- the claim --------------------------------------------------------------------------------

    @property
    def is_to_claim(self) -> bool:
        """Whether something was gained, and how much has not been measured yet."""
        gained = any(entry.verdict == "kept" for entry in self.ledger.entries)
        return gained and self.incumbent.blob != self.start_blob and self.claimed is None

    @property
    def claimed(self) -> baseline.Claim | None:
        """What this campaign has claimed of its incumbent."""
        return self.incumbent.claim if self.incumbent.start == self.start_blob else None

    def claim(self, start: tuple[Measurement, ...], final: tuple[Measurement, ...]) -> baseline.Claim:
        """Store what fresh runs of the start and of the incumbent say, and return it.

        Raises:
            RepositoryError: somebody else has moved the branch, or changed the experiment's files.
        """
        self.check_ground()
        claim = baseline.Claim.of(start, final, self.standing.noise)
        record = dataclasses.replace(self.incumbent, start=self.start_blob, claim=claim)
        ref = self._refs + CLAIM
        with deferred():
            self._commit_record(record, self._claim_message(claim), {ref: self.repository.tip_of(ref)})
            self.incumbent = record
        return claim

    def _claim_message(self, claim: baseline.Claim) -> str:
        metric = self._experiment.settings.metric
        before, after = (statistics.fmean(run.claimed for run in runs) for runs in (claim.start, claim.final))
        lines = [
            f"Claim {metric} {claim}",
            "",
            f"{format_score(before)} -> {format_score(after)} in {len(claim.final)} fresh runs each",
            "",
            f"Trials: {self.next_number - 1}",
            f"Gain: {format_exact(claim.gain)}",
            f"Margin: {format_exact(claim.margin)}",
            f"Start: {self.start_blob}",
            *(f"{INCUMBENT_RUN}: {json.dumps(run.to_json())}" for run in claim.start),
            *measurement_trailers(claim.final),
        ]
        return "\n".join([*lines, ""])


def _is_storable(source: str) -> bool:
    try:
        return len(source.encode()) <= LARGEST
    except UnicodeEncodeError:
        return False


def _json(value: Mapping[str, str]) -> str:
    return json.dumps(dict(value), sort_keys=True)
