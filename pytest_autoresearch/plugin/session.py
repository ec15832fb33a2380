"""``--autoresearch``: a session that runs the baseline, the loop of a campaign, and the claim."""

from __future__ import annotations

import contextlib
import datetime as dt
import re
from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

from pytest_autoresearch.campaign.git import Repository
from pytest_autoresearch.campaign.opening import CampaignOpener
from pytest_autoresearch.errors import LockHeld, LoopFailed, RepositoryError, StorageError
from pytest_autoresearch.loop.loop import ResearchLoop, Surroundings
from pytest_autoresearch.plugin import agents
from pytest_autoresearch.plugin.baseline import BaselineItem
from pytest_autoresearch.plugin.claim import ClaimItem
from pytest_autoresearch.plugin.host import SessionHost
from pytest_autoresearch.plugin.options import TAG
from pytest_autoresearch.plugin.preparing import opened_experiment
from pytest_autoresearch.plugin.progress import say
from pytest_autoresearch.plugin.translation import end, stopped_by_signals
from pytest_autoresearch.report.summary import summary
from pytest_autoresearch.system import temporary
from pytest_autoresearch.system.files import KINDS, writing
from pytest_autoresearch.system.locks import Lock
from pytest_autoresearch.text import single_line

if TYPE_CHECKING:
    from pytest_autoresearch.agents.chain import AgentChain
    from pytest_autoresearch.campaign.writer import CampaignWriter
    from pytest_autoresearch.plugin.experiment import Experiment
    from pytest_autoresearch.settings import Settings

STATE = ".autoresearch"  # in the root directory; ignores itself, as pytest's cache does


class ResearchSession:
    """A plugin of its own, registered under ``--autoresearch``."""

    def __init__(self, config: pytest.Config, settings: Settings, chain: AgentChain | None) -> None:
        """Look whether the campaign can be worked on; change nothing yet.

        Raises:
            RepositoryError: it cannot.
        """
        self._config = config
        self._settings = settings
        self._chain = chain
        repository = Repository(settings.spec)
        tag = settings.tag or _tag_of(repository.status().branch) or _today()
        state = config.rootpath / STATE / tag
        self._opener = CampaignOpener(repository, tag, state, config.rootpath / "results.tsv")
        self._writer: CampaignWriter | None = None
        self._recovered: list[str] = []
        if not settings.planning:
            self._lock(repository, tag)
        self._opener.check()

    def _lock(self, repository: Repository, tag: str) -> None:
        """Be the only process that works on this campaign and in this working tree, or raise LockHeld."""
        held = contextlib.ExitStack()
        self._config.add_cleanup(held.close)
        elsewhere = "use another working tree: git worktree add"
        locks = []
        for path, what, hint in (
            (repository.common / "autoresearch" / f"{tag}.lock", f"campaign {tag}", "choose another tag"),
            (repository.directory / "autoresearch.lock", "this working tree", elsewhere),
        ):
            try:
                with writing(path):
                    locks.append(held.enter_context(Lock(path)))
            except LockHeld as holder:
                raise LockHeld(f"{what} is in use by {holder}: wait for it, or {hint}") from None
        if died := locks[0].died:
            self._recovered.append(f"taken over from {died}, which did not end as it should")
        if left := temporary.sweep():
            folders = "a temporary folder was" if left == 1 else f"{left} temporary folders were"
            self._recovered.append(f"{folders} left by a process that was killed, and removed")

    def pytest_report_header(self) -> list[str]:
        """Say who proposes, to which campaign, and for how long."""
        trials, chain = self._settings.trials, self._chain
        amount = "until stopped" if trials is None else f"trials: {trials}"
        agent = "the project's own" if chain is None else chain.name
        more = [] if chain is None else chain.header(self._settings.agents.max_cost)
        return [f"campaign: {self._opener.refs.branch}, agent: {agent}, {amount}", *more]

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """Run the baseline as pytest would, then the loop, then the claim."""
        if self._settings.planning:
            return (yield)
        with stopped_by_signals():
            try:
                with opened_experiment(session, self._settings, self._opener.revision) as experiment:
                    campaign = self._opener.check_out(experiment.site.platform)
                    experiment.first_cache_use = "fill" if campaign.is_at_start else "empty"
                    self._say_recovered(*self._recovered, *campaign.recovered)
                    session.testscollected += self._settings.trials or 0
                    result = yield
                    if not session.testsfailed:
                        baseline = _measured(session)
                        self._writer = campaign.start(
                            baseline.measured,
                            self._settings.policy,
                            device=experiment.site.profile,
                            keep_logs=self._settings.keep_logs,
                        )
                        self._say_recovered(*self._writer.recovered)
                        self._research(session, experiment, self._writer, baseline)
                        self._claim(session, self._writer, baseline)
            except RepositoryError as error:
                end(error)
            except StorageError as error:
                end(error, f"; {self._stored()}")
        return result

    def _research(
        self, session: pytest.Session, experiment: Experiment, writer: CampaignWriter, baseline: BaselineItem
    ) -> None:
        settings, plugins, site = self._settings, self._config.pluginmanager, experiment.site
        if self._chain is not None and not settings.agent_names and agents.has_own(plugins):
            plugins.unregister(name=agents.PLUGIN)  # if the agent's conftest.py was found late
            self._chain = None
        if self._chain is not None:
            usages = (trial.usage for trial in writer.history.trials)
            self._chain.budget.open(writer.costs, writer.costs.unattributed(usages))
        host = SessionHost(session, baseline, self._chain, settings)
        surroundings = Surroundings(
            experiment.program, experiment.fixed, site.profile, site.hidden, baseline.limit
        )
        try:
            ResearchLoop(host, writer, experiment.executor, settings, surroundings).run()
        except (LoopFailed, RepositoryError) as error:
            session.shouldfail = str(error)
            raise session.Failed(session.shouldfail) from error

    def _claim(self, session: pytest.Session, writer: CampaignWriter, baseline: BaselineItem) -> None:
        """Measure afresh what was gained, if anything was since the last time."""
        if not writer.history.is_to_claim:
            return
        assert baseline.parent is not None
        claim: ClaimItem = ClaimItem.from_parent(baseline.parent, name="claim", writer=writer)
        session.items.append(claim)
        session.testscollected += 1
        self._config.hook.pytest_runtest_protocol(item=claim, nextitem=None)

    def _say_recovered(self, *lines: str) -> None:
        for line in lines:
            say(self._config, f"recovered: {line}")

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
        if self._writer is None:
            return "nothing that was stored is lost"
        number = self._writer.history.next_number - 1
        return f"every trial up to {number} is stored" if number else "the baseline is stored"

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what came of it, over all sessions of the campaign."""
        if self._writer is None:
            return
        terminalreporter.write_sep("=", f"autoresearch {self._opener.tag}")
        writer, limit = self._writer, self._settings.memory_soft_limit
        remarks = [] if self._chain is None else self._chain.remarks()
        for line in (*summary(writer.history, writer.state, limit), *remarks):
            terminalreporter.write_line(line)


def _measured(session: pytest.Session) -> BaselineItem:
    """Return the baseline's item, or raise RepositoryError if it was deselected or skipped."""
    for item in session.items:
        if isinstance(item, BaselineItem) and item.measured:
            return item
    raise RepositoryError("the baseline was not measured: drop what deselects or skips it")


def _tag_of(branch: str | None) -> str | None:
    prefix, _, tag = (branch or "").partition("/")
    return tag if prefix == "autoresearch" and re.fullmatch(TAG, tag) else None


def _today() -> str:
    # Upstream's form: mar5.
    today = dt.datetime.now().astimezone()
    return f"{today:%b}{today.day}".lower()
