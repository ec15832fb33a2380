"""The loop: trial after trial, until stopped or out of budget."""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import math
import re
import time
from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

from pytest_autoresearch.agents import registry
from pytest_autoresearch.agents.briefing import Briefing
from pytest_autoresearch.campaign.git import Repository
from pytest_autoresearch.campaign.writer import Campaign
from pytest_autoresearch.errors import AllAgentsUnavailable, LockHeld, RepositoryError, StorageError
from pytest_autoresearch.plugin.items import BaselineItem, ClaimItem, TrialItem
from pytest_autoresearch.plugin.preparing import opened_experiment
from pytest_autoresearch.plugin.progress import LiveLine
from pytest_autoresearch.records.proposal import checked
from pytest_autoresearch.report.summary import summary
from pytest_autoresearch.runs.experiment import KEY, PROGRAM
from pytest_autoresearch.settings import TAG
from pytest_autoresearch.system import temporary
from pytest_autoresearch.system.files import KINDS, writing
from pytest_autoresearch.system.locks import Lock
from pytest_autoresearch.system.signals import stoppable
from pytest_autoresearch.system.text import single_line

if TYPE_CHECKING:
    from pytest_autoresearch.agents.chain import AgentChain
    from pytest_autoresearch.records.proposal import Proposal
    from pytest_autoresearch.settings import Settings

STATE = ".autoresearch"  # in the root directory; ignores itself, as pytest's cache does
FIRST_WAIT, LONGEST_WAIT = 2.0, 600.0  # seconds until agents without an answer are asked again; doubled
RECENT = 10  # trials that tell how long the next one may take


class ResearchSession:
    """``--autoresearch``, a plugin of its own: it drives pytest through the trials of one campaign."""

    def __init__(self, config: pytest.Config, settings: Settings, panel: AgentChain | None) -> None:
        """Look whether the campaign can be worked on; change nothing yet.

        Raises:
            RepositoryError: it cannot.
        """
        self._config = config
        self._settings = settings
        self._panel = panel
        repository = Repository.of(settings.script)
        tag = settings.tag or _tag_of(repository.branch()) or _today()
        state = config.rootpath / STATE / tag
        self.campaign = Campaign(repository, tag, state, config.rootpath / "results.tsv")
        self._held = contextlib.ExitStack()
        config.add_cleanup(self._held.close)
        if not settings.planning:
            self._hold(repository, tag)
        self.campaign.check_clean()
        self._trials_left: float = math.inf if settings.trials is None else settings.trials
        self._trials_run = 0  # which are in no list of items: thousands of them would be held there
        self._deadline = math.inf
        self._silent = 0  # trials in a row that nobody had a proposal for

    def _hold(self, repository: Repository, tag: str) -> None:
        """Be the only one who works on this campaign, and in this working tree.

        Raises:
            RepositoryError: somebody else is there.
        """
        elsewhere = "use another working tree: git worktree add"
        locks = []
        for path, what, relief in (
            (repository.common / "autoresearch" / f"{tag}.lock", f"campaign {tag}", "choose another tag"),
            (repository.directory / "autoresearch.lock", "this working tree", elsewhere),
        ):
            try:
                with writing(path):
                    locks.append(self._held.enter_context(Lock(path)))
            except LockHeld as holder:
                raise RepositoryError(f"{what} is in use by {holder}: wait for it, or {relief}") from None
        if died := locks[0].died:
            self.campaign.healed.append(f"taken over from {died}, which did not end as it should")
        if left := temporary.sweep():
            folders = "a temporary folder was" if left == 1 else f"{left} temporary folders were"
            self.campaign.healed.append(f"{folders} left by a process that was killed, and removed")

    def pytest_report_header(self) -> list[str]:
        """Say who works on what, and for how long."""
        trials = self._settings.trials
        amount = "until stopped" if trials is None else f"trials: {trials}"
        agent = "the project's own" if self._panel is None else self._panel.name
        said = [] if self._panel is None else self._panel.header(self._settings.max_cost)
        return [f"campaign: {self.campaign.branch}, agent: {agent}, {amount}", *said]

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """Run the baseline as pytest would, then the trials."""
        if self._settings.planning:
            return (yield)
        with stoppable():
            try:
                with opened_experiment(session, self._settings, self.campaign.revision) as experiment:
                    self.campaign.open(experiment)
                    experiment.conditions.caches.trusted = self.campaign.is_at_start
                    self._say_healed()
                    session.testscollected += self._settings.trials or 0  # what the percentage is of
                    result = yield
                    if not session.testsfailed:
                        item = _measured(session)
                        self.campaign.begin(item.measured)
                        self._say_healed()
                        self._conduct(session, item)
                        self._claim(session, item)
            except RepositoryError as error:
                pytest.exit(str(error), returncode=pytest.ExitCode.USAGE_ERROR)
            except StorageError as error:
                pytest.exit(f"{error}; {self._stored()}", returncode=pytest.ExitCode.TESTS_FAILED)
        session.testscollected = len(session.items) + self._trials_run
        return result

    def _say_healed(self) -> None:
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None and reporter.verbosity >= 0:
            for line in self.campaign.healed:
                reporter.ensure_newline()
                reporter.write_line(f"healed: {line}")
        self.campaign.healed.clear()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """End the session where an item meets a disk that fails: that is no fault of the item's."""
        if call.excinfo is not None and isinstance(call.excinfo.value, StorageError):
            raise call.excinfo.value
        return (yield)

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, object, object]:
        """Let the summary follow where pytest cannot write files of its own: its cache, or JUnit's."""
        try:
            return (yield)
        except OSError as error:
            if error.errno not in KINDS:
                raise
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED
            reporter = session.config.pluginmanager.get_plugin("terminalreporter")
            if reporter is not None:
                reporter.write_line(f"pytest could not write its own files: {single_line(str(error))}")
            return None

    def _stored(self) -> str:
        if not self.campaign.begun:
            return "nothing that was stored is lost"
        number = self.campaign.next_number - 1
        return f"every trial up to {number} is stored" if number else "the baseline is stored"

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what came of it, over all sessions of the campaign."""
        if self.campaign.begun:
            terminalreporter.write_sep("=", f"autoresearch {self.campaign.tag}")
            said = [] if self._panel is None else self._panel.last_words()
            for line in (*summary(self.campaign, self._settings.metric), *said):
                terminalreporter.write_line(line)

    def _conduct(self, session: pytest.Session, sibling: BaselineItem) -> None:
        plugins, hours = self._config.pluginmanager, self._settings.hours
        if not self._settings.agents and registry.has_own(plugins) and plugins.has_plugin(registry.PANEL):
            plugins.unregister(name=registry.PANEL)  # the agent's conftest.py was found late
            self._panel = None
        if self._panel is not None:
            books = self.campaign.books
            self._panel.open_books(books, books.owed(entry.usage for entry in self.campaign.ledger.entries))
        self._deadline = math.inf if hours is None else time.monotonic() + 3600 * hours
        while self._trials_left and time.monotonic() < self._deadline:
            trial = self._next(session, sibling)
            if trial is None:
                break
            self._trials_left -= 1
            self._trials_run += 1
            session.testscollected = max(session.testscollected, len(session.items) + self._trials_run)
            if self._panel is not None and self._goes_on():
                self._panel.prepare(self._briefing(session, trial.proposal))
            # The sibling keeps pytest from tearing down what both stand on.
            self._config.hook.pytest_runtest_protocol(item=trial, nextitem=sibling)
            self._forget(trial)
            if session.shouldstop:
                raise session.Interrupted(session.shouldstop)
            if reason := session.shouldfail or self._cannot_go_on(trial) or self._tell(trial):
                session.shouldfail = reason
                raise session.Failed(reason)
            self._wait(trial)

    def _forget(self, trial: TrialItem) -> None:
        """Let go of what is not wanted any more, before thousands of trials have come together.

        pytest remembers how a trial's setup and teardown went, and never shows it. The trial itself waits in
        a cycle for the garbage collector, and what it was told holds all trials before it.
        """
        del trial.briefing
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        reports = [] if reporter is None else reporter.stats.get("", [])
        while reports and reports[-1].nodeid == trial.nodeid and not reports[-1].sections:
            reports.pop()

    def _goes_on(self) -> bool:
        """Tell whether there will be another trial if this one takes as long as those before."""
        seconds = [run.wall_seconds for entry in self.campaign.ledger.entries for run in entry.measurements]
        longest = max(seconds[-RECENT:], default=0.0)
        return self._trials_left > 0 and time.monotonic() + longest < self._deadline

    def _wait(self, trial: TrialItem) -> None:
        """Ask more and more slowly while nobody has an answer: an outage, or a limit, will pass."""
        self._silent = self._silent + 1 if trial.proposal.unanswered else 0
        if not self._silent or not self._trials_left:
            return
        wait = min(FIRST_WAIT * 2.0 ** (self._silent - 1), LONGEST_WAIT, self._deadline - time.monotonic())
        with LiveLine(self._config, "agent") as live:
            live.update(f"no answer: asking again in {wait:.0f} s")
            time.sleep(max(wait, 0.0))

    def _claim(self, session: pytest.Session, sibling: BaselineItem) -> None:
        """Measure afresh what was gained, if anything was since the last time."""
        if not self.campaign.is_to_claim:
            return
        assert sibling.parent is not None
        claim: ClaimItem = ClaimItem.from_parent(sibling.parent, name="claim", campaign=self.campaign)
        session.items.append(claim)
        session.testscollected = max(session.testscollected, len(session.items) + self._trials_run)
        self._config.hook.pytest_runtest_protocol(item=claim, nextitem=None)

    def _next(self, session: pytest.Session, sibling: BaselineItem) -> TrialItem | None:
        briefing = self._briefing(session)
        try:
            with LiveLine(self._config, "agent") as live:
                live.update(f"trial {briefing.number}: asking for a proposal")
                proposal = self._config.hook.pytest_autoresearch_propose(
                    config=self._config, briefing=briefing
                )
            if proposal is None:
                return None
            proposal = checked(proposal)
        except (pytest.exit.Exception, StorageError):
            raise
        except AllAgentsUnavailable as error:
            session.shouldfail = f"no agent is left: {error}"
            raise session.Failed(session.shouldfail) from error
        except Exception as error:
            session.shouldfail = single_line(f"no proposal: {type(error).__name__}: {error}")
            raise session.Failed(session.shouldfail) from error
        name = f"trial[{briefing.number:04d}-{slug(proposal.description)}]"
        assert sibling.parent is not None
        trial: TrialItem = TrialItem.from_parent(
            sibling.parent,
            name=name,
            nodeid=f"{sibling.parent.nodeid}::{name}",
            proposal=proposal,
            briefing=briefing,
            campaign=self.campaign,
        )
        return trial

    def _briefing(self, session: pytest.Session, running: Proposal | None = None) -> Briefing:
        """Return what is known now; with a proposal that is *running*, for the trial after it."""
        experiment, campaign = session.stash[KEY], self.campaign
        history = tuple(campaign.ledger.entries)
        spent = sum(entry.usage.cost for entry in history) + (running.usage.cost if running else 0.0)
        return Briefing(
            tag=campaign.tag,
            number=campaign.next_number + (running is not None),
            program=experiment.committed(PROGRAM),
            fixed=experiment.fixed,
            script=experiment.script(),
            start=campaign.start,
            history=history,
            score=campaign.standing.belief.mean,
            noise=campaign.standing.noise.spread,
            metric=self._settings.metric,
            direction=self._settings.direction,
            memory_mb=campaign.start_memory,
            memory_soft_limit_mb=campaign.memory_soft_limit(),
            memory_limit_mb=self._settings.memory_limit,
            platform=experiment.platform,
            trials_left=int(self._trials_left) if self._trials_left < math.inf else None,
            seconds_left=self._deadline - time.monotonic() if self._deadline < math.inf else None,
            cost=spent,
            max_cost=self._settings.max_cost,
            running=running,
            hidden=experiment.conditions.hidden,
        )

    def _cannot_go_on(self, trial: TrialItem) -> str | None:
        entries = self.campaign.ledger.entries
        if trial.decision is None or not entries or entries[-1].number != trial.number:
            return f"{trial.name} could not be decided and stored"
        if trial.session.testsfailed:  # and the next one would be asked for, to be refused
            return f"{trial.name} is stored, but the campaign cannot go on as it is"
        if (most := self._settings.give_up_after) is not None and not entries[-1].unanswered:
            answered = (entry for entry in reversed(entries) if not entry.unanswered)
            last = list(itertools.islice(answered, most))
            if len(last) == most and all(entry.verdict not in ("kept", "discarded") for entry in last):
                return f"{most} trials in a row gave no score, the last one: {last[0].reason}"
        return None

    def _tell(self, trial: TrialItem) -> str | None:
        """Tell everybody who wants to know; return what went wrong in that."""
        entry = self.campaign.ledger.entries[-1]
        try:
            self._config.hook.pytest_autoresearch_decided(config=self._config, trial=entry)
        except pytest.exit.Exception:
            raise
        except Exception as error:  # noqa: BLE001 - it is somebody else's code
            problem = single_line(f"{type(error).__name__}: {error}")
            return f"pytest_autoresearch_decided failed after {trial.name}: {problem}"
        return None


def _measured(session: pytest.Session) -> BaselineItem:
    """Return the baseline's item.

    Raises:
        RepositoryError: it was deselected or skipped.
    """
    for item in session.items:
        if isinstance(item, BaselineItem) and item.measured:
            return item
    msg = "the baseline was not measured: drop what deselects or skips it"
    raise RepositoryError(msg)


def slug(description: str) -> str:
    """Return *description* as part of a node id: lower case, digits, dots and dashes."""
    text = re.sub(r"[^a-z0-9.]+", "-", description.lower().replace("->", " ").replace("_", "-"))
    return text.strip("-.")[:40].rstrip("-.") or "change"


def _tag_of(branch: str | None) -> str | None:
    prefix, _, tag = (branch or "").partition("/")
    return tag if prefix == "autoresearch" and re.fullmatch(TAG, tag) else None


def _today() -> str:
    # Upstream's form: mar5.
    today = dt.datetime.now().astimezone()
    return f"{today:%b}{today.day}".lower()
