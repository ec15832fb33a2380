"""A campaign is checked, its branch checked out, and its writer made: in this order, with runs in between.

``CampaignOpener.check`` changes nothing. ``CampaignOpener.check_out`` comes after ``prepare.py`` has
described the platform, and ``CheckedOut.start`` after the baseline was measured on the branch. Each of them
raises RepositoryError, which says what to do, if the campaign cannot go on as things are, or git refuses.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from pytest_autoresearch.campaign import baseline, checkout, checks, derived
from pytest_autoresearch.campaign.baseline import Baseline
from pytest_autoresearch.campaign.costs import CostTotal
from pytest_autoresearch.campaign.derived import DerivedFile, first_commit
from pytest_autoresearch.campaign.git import Repository, Status
from pytest_autoresearch.campaign.history import CampaignHistory, read_commits
from pytest_autoresearch.campaign.logs import Logs
from pytest_autoresearch.campaign.refs import NAMESPACE, CampaignRefs
from pytest_autoresearch.campaign.writer import CampaignBranch, CampaignWriter
from pytest_autoresearch.errors import RepositoryError
from pytest_autoresearch.judging.judge import JudgePolicy
from pytest_autoresearch.records.measurement import Measurement
from pytest_autoresearch.records.trailers import header_message
from pytest_autoresearch.system.files import writing


@dataclasses.dataclass(frozen=True, slots=True)
class CampaignOpener:
    """A campaign that is to go on, or to start."""

    repository: Repository
    tag: str
    state: Path
    """The folder of the ledger and the logs."""
    results: Path
    """The place of ``results.tsv``."""

    @property
    def refs(self) -> CampaignRefs:
        """The names of its refs."""
        return CampaignRefs(self.tag)

    @property
    def revision(self) -> str:
        """Where the campaign goes on: the tip of its branch or, for a new tag, HEAD."""
        return self.repository.tip_of(self.refs.head) or self.repository.head()

    def check(self) -> None:
        """Check that the working tree is as committed, and nothing is in the way of the campaign."""
        checks.check_room(self.repository, self.refs, self.state)
        checks.check_visible(self.repository)
        commits, tip = read_commits(self.repository, self.refs)
        if commits:
            checks.check_whole(self.repository, self.refs, commits, tip)
        self._checked_status()
        if self.results.exists() and not self._is_results():
            raise RepositoryError(f"{self.results.name} is not a campaign's: move it away first")

    def check_out(self, platform: Mapping[str, str]) -> CheckedOut:
        """Check out the campaign's branch, at its tip or, if new, here; finish a keep that was killed."""
        repository, refs, spec, recovered = self.repository, self.refs, self.repository.spec, []
        shutil.rmtree(spec.folder / checkout.FRESH, ignore_errors=True)  # of a session that was killed
        trials, tip = read_commits(repository, refs)
        terms = {
            "Experiment": [repository.path_of(spec.script)],
            "Editable": spec.editable,
            "Metric": [spec.metric],
            "Direction": [spec.direction],
            "Platform": [json.dumps(dict(platform), sort_keys=True)],
        }
        if 0 in trials:
            checks.check_terms(self.tag, trials[0].message, terms)
            last = refs.trial(max(trials))
            latest = [refs.claim, last, f"{last}^", refs.header]
            checks.check_record(repository, tip or repository.head(), refs.header, latest, platform)
        head, current, changed = self._checked_status()
        if changed:
            checkout.refresh(repository, changed)
            recovered.append(f"{', '.join(changed)} brought to what the branch's last commit had stored")
        if current != refs.branch:
            checkout.switch(repository, refs.branch, create=tip is None)
        branch = CampaignBranch(repository, refs, tip or head)
        if number := self._finish_keep(branch.tip):
            recovered.append(f"trial {number} was kept, and now has its ref too")
        return CheckedOut(self, branch, platform, terms, 0 not in trials, tuple(recovered))

    def logs(self, keep: int | None) -> Logs:
        """Return the logs; those of the last *keep* trials are kept."""
        return Logs(self.repository, self.refs, self.state / "logs", keep)

    def _is_results(self) -> bool:
        """Return whether ``results.tsv`` can be overwritten: its first row is the header of a campaign."""
        if not self.results.is_file():
            return False
        text = self.results.read_text(encoding="utf-8", errors="replace")
        if len(text.splitlines()) < 2:
            return not text.splitlines()
        headers = self.repository.commits(CampaignRefs("*").header)
        return first_commit(text) in {header.name[:7] for header in headers}

    def _checked_status(self) -> Status:
        """Return the status; files may only have changed by a keep that was killed half way."""
        status = self.repository.status()
        commit, branch, changed = status
        if changed and not (branch == self.refs.branch and self._is_unfinished_keep(commit, changed)):
            names = ", ".join(changed[:3])
            raise RepositoryError(f"uncommitted changes in {names}: commit or stash them first")
        return status

    def _is_unfinished_keep(self, head: str, changed: list[str]) -> bool:
        """Return whether the branch has moved to a commit of ours, and the working tree has not followed."""
        repository = self.repository
        fixed = {repository.path_of(name) for name in repository.spec.fixed}
        if not all(repository.is_part(path) and path not in fixed for path in changed):
            return False
        known = {commit.name for commit in repository.commits(self.refs.commits)}
        if head not in known and "Trial" not in repository.own_trailers(head):
            return False  # nor a baseline that was measured anew, or a keep, whose ref was not written
        now = checkout.blobs(repository, changed)
        return repository.git.ids(*(f"HEAD^:{path}" for path in changed)) == [*map(now.get, changed)]

    def _finish_keep(self, tip: str) -> int:
        """Write the ref of a trial that is the tip of the branch: git moves one ref after the other.

        Return its number, 0 if there is nothing to finish.
        """
        # A trial that was cherry-picked from another campaign has the user as its committer.
        trailers = self.repository.own_trailers(tip)
        number = trailers.get("Trial", [""])[0]
        if trailers.get("Verdict") != ["kept"] or not re.fullmatch(r"[1-9]\d{,8}", number):
            return 0
        ref, before = (self.refs.trial(which) for which in (int(number), int(number) - 1))
        refs = self.repository.refs(NAMESPACE)
        if ref in refs or before not in refs or tip in refs.values():  # of another campaign
            return 0
        self.repository.move({ref: (None, tip), **self.logs(None).moves(int(number))})
        return int(number)


@dataclasses.dataclass(frozen=True, slots=True)
class CheckedOut:
    """A campaign whose branch is checked out, and whose baseline is to be measured."""

    opener: CampaignOpener
    branch: CampaignBranch
    platform: Mapping[str, str]
    terms: Mapping[str, Sequence[str]]
    """What stays the same from a campaign's header on, as trailers."""
    is_new: bool
    """Whether there is no header yet."""
    recovered: tuple[str, ...]
    """What was put right, a line each."""

    @property
    def is_at_start(self) -> bool:
        """Whether the branch still holds the files that the campaign started with."""
        header, tip = self.opener.refs.header, self.branch.tip
        return self.is_new or len({*self.opener.repository.trees(header, tip).values()}) == 1

    def start(
        self, runs: tuple[Measurement, ...], policy: JudgePolicy, *, device: str, keep_logs: int | None
    ) -> CampaignWriter:
        """Store the baseline, from *runs* of the files at the tip of the branch, and return the writer."""
        opener, recovered = self.opener, list[str]()
        unassigned = self._store_baseline(runs)
        history = CampaignHistory.load(opener.repository, opener.tag)
        with writing(opener.state.parent / ".gitignore"):
            opener.state.mkdir(parents=True, exist_ok=True)
            (opener.state.parent / ".gitignore").write_text("*\n", encoding="utf-8")
        ledger = DerivedFile(opener.state / "ledger.jsonl", map(derived.ledger_line, history.trials))
        first = derived.baseline_row(history.header.commit, history.header.measurements)
        rows = [derived.results_header(history.incumbent.metric), first]
        results = DerivedFile(opener.results, [*rows, *map(derived.trial_row, history.trials)])
        if ledger.replaced:
            recovered.append("ledger.jsonl differed from the refs, and is written anew")
        if first_commit(results.replaced) == history.header.commit[:7]:  # else it is another campaign's
            recovered.append("results.tsv differed from the refs, and is written anew")
        logs = opener.logs(keep_logs)
        if logs.start(history.next_number):
            stopped = f"trial {history.next_number} was stopped before its verdict"
            recovered.append(f"{stopped}: its log is dropped")
        return CampaignWriter(
            self.branch,
            history,
            history.judge_state(policy),
            opener.repository.files_at(self.branch.tip),
            logs,
            CostTotal(opener.repository, opener.refs),
            ledger,
            results,
            unassigned,
            device,
            tuple(recovered),
        )

    def _store_baseline(self, runs: tuple[Measurement, ...]) -> tuple[Measurement, ...]:
        """Commit a header, or a baseline that was measured anew; return the runs that are in no commit."""
        repository, branch = self.opener.repository, self.branch
        metric, tree = repository.spec.metric, repository.tree_at(branch.tip)
        record = baseline.find_at(repository, branch.tip, self.platform)
        if record is None or record.tree != tree:
            record = Baseline.measured(self.platform, metric, branch.tip, tree, runs)
        elif self.is_new:
            record = record.started(runs)
        else:
            return runs
        name = self.platform.get("device_name", self.platform.get("machine", "this machine"))
        message = header_message(metric, name, runs, self.terms)
        branch.store_record(record, message, {self.opener.refs.header: None} if self.is_new else {})
        return ()
