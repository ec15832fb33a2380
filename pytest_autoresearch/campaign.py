"""One campaign: its branch, its refs, its ledger and its incumbent.

The refs are the truth. ``refs/autoresearch/<tag>/0000`` is the opening: the script and the platform
that the campaign began with, and what they measured. ``…/0001`` and up are the trials, each a commit
on top of the incumbent it was judged against; the kept ones are the branch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_autoresearch import baseline
from pytest_autoresearch.agents import constants
from pytest_autoresearch.agents.edits import LARGEST
from pytest_autoresearch.experiment import FIXED, RECORDS, Experiment
from pytest_autoresearch.ledger import (
    Decision,
    Entry,
    Ledger,
    Value,
    measurement_trailers,
    parse_measurements,
    trailer_name,
    trailers_of,
)
from pytest_autoresearch.measuring.measurement import Measurement, exact, figure, mean_score
from pytest_autoresearch.oneline import one_line
from pytest_autoresearch.reporting.results import Results, baseline_row, trial_row
from pytest_autoresearch.repository import Repository, Unusable
from pytest_autoresearch.signals import deferred

if TYPE_CHECKING:
    from pytest_autoresearch.agents.briefing import Proposal


class Campaign:
    """What is known under one tag, and the only writer of it.

    It is looked at first, then opened, which checks out its branch, and begun once the baseline is measured.
    """

    begun = False
    incumbent: baseline.Record
    ledger: Ledger
    start: str
    """The script that the campaign began with."""
    start_score: float
    """Its mean score at the time."""

    def __init__(self, repository: Repository, tag: str, state: Path, results: Path) -> None:
        self.repository = repository
        self.tag = tag
        self.branch = f"autoresearch/{tag}"
        self._refs = f"refs/autoresearch/{tag}/"
        self._state = state
        self._results_path = results
        self._records = repository.beside(RECORDS)

    # -- opening ----------------------------------------------------------------------------------

    def check_clean(self) -> None:
        """Look whether the working tree holds nothing but what is committed.

        Raises:
            Unusable: it does, and it is not a keep that was killed half way.
        """
        changed = self.repository.changes()
        if changed and not self._is_unfinished_keep(changed):
            msg = f"uncommitted changes in {', '.join(changed[:3])}: commit or stash them first"
            raise Unusable(msg)
        if self._results_path.exists() and not self._is_results():
            msg = f"{self._results_path.name} is not a campaign's: move it away first"
            raise Unusable(msg)

    def _is_results(self) -> bool:
        """Tell whether ``results.tsv`` can be written over: its first row is the opening of a campaign."""
        rows = self._results_path.read_text(encoding="utf-8", errors="replace").splitlines()
        if len(rows) < 2:
            return False
        known = self.repository.messages("refs/autoresearch/")
        return rows[1].partition("\t")[0] in {
            commit[:7] for name, commit, _ in known if name.endswith("/0000")
        }

    def _is_unfinished_keep(self, changed: list[str]) -> bool:
        """Tell whether the branch has moved to a kept trial, and the working tree has not followed."""
        repository = self.repository
        if repository.branch() != self.branch or not {repository.script, self._records}.issuperset(changed):
            return False
        if repository.head() not in {commit for _, commit, _ in repository.messages(self._refs)}:
            return False
        return all(repository.blob_in_tree(path) == repository.blob_of(path, "HEAD^") for path in changed)

    @property
    def revision(self) -> str:
        """Where the campaign goes on: the tip of its branch or, for a new tag, what is checked out."""
        tip = self.repository.tip_of(f"refs/heads/{self.branch}")
        return self.repository.head() if tip is None else tip

    def open(self, experiment: Experiment) -> None:
        """Check out the campaign's branch: at its tip or, for a new tag, here.

        Raises:
            Unusable: the campaign was begun on another platform, or for another metric; git refuses.
        """
        self._experiment = experiment
        opening = self.repository.tip_of(self._refs + "0000")
        if opening is not None:
            self._check_same(opening)
        if changed := self.repository.changes():
            self.repository.refresh(*changed)
        if self.repository.branch() != self.branch:
            exists = self.repository.tip_of(f"refs/heads/{self.branch}") is not None
            self.repository.switch(self.branch, create=not exists)
        self._tip = self.repository.head()

    def begin(self, runs: tuple[Measurement, ...]) -> None:
        """Take the baseline, just measured in *runs*, as the incumbent, and read what was tried before.

        Raises:
            Unusable: git refuses, or holds what no campaign wrote.
        """
        experiment, opening = self._experiment, self.repository.tip_of(self._refs + "0000")
        record, blob = experiment.record(), self.repository.blob_of(self.repository.script)
        assert blob is not None
        with deferred():
            if record is None or record.blob != blob:
                metric = experiment.settings.metric
                record = baseline.Record.measured(experiment.platform, metric, self._tip, blob, runs)
                self._commit_baseline(record, is_opening=opening is None)
            elif opening is None:
                commit = self.repository.commit(self._tip, {}, self._opening_message(runs))
                self.repository.move({self._refs + "0000": (None, commit)})
        self.incumbent = record
        self._load()
        self.begun = True

    def _check_same(self, opening: str) -> None:
        trailers = trailers_of(self.repository.message(opening))
        now = {"Platform": _json(self._experiment.platform), "Metric": self._experiment.settings.metric}
        for name, value in now.items():
            if trailers.get(name) != [value]:
                then = trailers.get(name, ["nothing"])[0]
                was = f"campaign {self.tag} was begun with {name.lower()} {then}"
                raise Unusable(f"{was}, now it is {value}: choose another --autoresearch-tag")

    def _commit_baseline(self, record: baseline.Record, *, is_opening: bool) -> None:
        text = baseline.write(self._experiment.records(), record)
        message = self._opening_message(record.measurements)
        commit = self.repository.commit(record.commit, {self._records: text}, message)
        refs: dict[str, tuple[str | None, str]] = {f"refs/heads/{self.branch}": (record.commit, commit)}
        if is_opening:
            refs[self._refs + "0000"] = (None, commit)
        self.repository.move(refs)
        self._tip = commit
        self.repository.refresh(self._records)

    def _opening_message(self, runs: tuple[Measurement, ...]) -> str:
        platform, metric = self._experiment.platform, self._experiment.settings.metric
        name = platform.get("device_name", platform.get("machine", "this machine"))
        score = mean_score(runs)
        lines = [
            f"Measure the baseline on {one_line(name, 60)}",
            "",
            f"{metric} {figure(score)} in {len(runs)} {'run' if len(runs) == 1 else 'runs'}",
            "",
            "Trial: 0",
            f"{trailer_name(metric)}: {exact(score)}",
            f"Metric: {metric}",
            f"Platform: {_json(platform)}",
            *measurement_trailers(runs),
        ]
        return "\n".join([*lines, ""])

    def _load(self) -> None:
        """Read start and ledger from the refs, and write the files that follow from them."""
        metric = self._experiment.settings.metric
        refs = {
            self._number(name): (commit, text) for name, commit, text in self.repository.messages(self._refs)
        }
        commit, message = refs.pop(0)
        measured = parse_measurements(trailers_of(message))
        self.start = self.repository.committed(self.repository.script, commit) or ""
        self.start_score = mean_score(measured)
        entries = [self._entry(*refs[number]) for number in sorted(refs)]
        self._state.mkdir(parents=True, exist_ok=True)
        (self._state.parent / ".gitignore").write_text("*\n", encoding="utf-8")
        self.ledger = Ledger(self._state / "ledger.jsonl", entries)
        rows = [baseline_row(commit, measured), *map(trial_row, entries)]
        self._results = Results(self._results_path, metric, rows)

    def _number(self, ref: str) -> int:
        name = ref.removeprefix(self._refs)
        if not re.fullmatch(r"\d{4,}", name):
            msg = f"{ref} is no trial: delete it with 'git update-ref -d {ref}'"
            raise Unusable(msg)
        return int(name)

    def _entry(self, commit: str, message: str) -> Entry:
        blob = self.repository.blob_of(self.repository.script, commit) or ""
        try:
            return Entry.from_message(
                message, commit, blob, self._constants(self.repository.text(blob, commit))
            )
        except ValueError as error:
            msg = f"a ref below {self._refs} is no trial: {error}"
            raise Unusable(msg) from error

    def _constants(self, source: str) -> Mapping[str, Value]:
        return constants.values(source, self._experiment.device)

    # -- trials -----------------------------------------------------------------------------------

    @property
    def next_number(self) -> int:
        """The number of the next trial."""
        return 1 + max((entry.number for entry in self.ledger.entries), default=0)

    def log(self, number: int) -> Path:
        """Return where the output of a trial goes."""
        return self._state / "logs" / f"{number:04d}.log"

    def check_ground(self) -> None:
        """Look whether the campaign still stands on what it left.

        Raises:
            Unusable: somebody else has moved the branch, or changed the experiment's files.
        """
        repository = self.repository
        if repository.branch() != self.branch or repository.head() != self._tip:
            msg = f"{self.branch} is no longer checked out as the campaign left it: start again"
            raise Unusable(msg)
        own = {repository.script, self._records, repository.beside(FIXED)}
        if changed := own.intersection(repository.changes()):
            names = ", ".join(sorted(changed))
            raise Unusable(f"{names} changed during the campaign: commit or restore, and start again")

    def conclude(self, number: int, proposal: Proposal, decision: Decision) -> Entry:
        """Write a decided trial: its commit and, if kept, the branch, in one transaction; then the files.

        Raises:
            Unusable: somebody else has moved the branch, or written the trial; or has changed the
                experiment's files, and then the trial itself is written.
        """
        own = {self.repository.script, self._records}
        touched = own.intersection(self.repository.changes())
        with deferred():
            entry = self._commit(number, proposal, decision)
            if decision.verdict == "kept" and not touched:
                self.repository.refresh(*own)
            self.ledger.record(entry)
            self._results.add(trial_row(entry))
        if touched:
            names = ", ".join(sorted(touched))
            raise Unusable(f"{names} changed during trial {number}, which is stored: restore and start again")
        return entry

    def _commit(self, number: int, proposal: Proposal, decision: Decision) -> Entry:
        repository, ref = self.repository, f"{self._refs}{number:04d}"
        source = proposal.source if _is_storable(proposal.source) else self._experiment.script()
        blob = repository.blob(source)
        entry = Entry(
            number=number,
            description=proposal.description,
            verdict=decision.verdict,
            reason=one_line(decision.reason, 400),
            commit="",
            blob=blob,
            baseline=self.incumbent.mean,
            measurements=decision.measurements,
            constants=self._constants(source),
        )
        files = {repository.script: source}
        record = self.incumbent
        if decision.verdict == "kept":
            record = self.incumbent.improved(ref, blob, decision.measurements)
            files[self._records] = baseline.write(self._experiment.records(), record)
        commit = repository.commit(self._tip, files, entry.message(self._experiment.settings.metric))
        refs: dict[str, tuple[str | None, str]] = {ref: (None, commit)}
        if decision.verdict == "kept":
            refs[f"refs/heads/{self.branch}"] = (self._tip, commit)
        repository.move(refs)
        if decision.verdict == "kept":
            self.incumbent, self._tip = record, commit
        return entry.written_as(commit)


def _is_storable(source: str) -> bool:
    try:
        return len(source.encode()) <= LARGEST
    except UnicodeEncodeError:
        return False


def _json(value: Mapping[str, str]) -> str:
    return json.dumps(dict(value), sort_keys=True)
