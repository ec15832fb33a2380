"""The loop: trial after trial, until stopped or out of budget."""

from __future__ import annotations

import datetime as dt
import re
import time
from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

from pytest_autoresearch.agents.briefing import Briefing, Proposal
from pytest_autoresearch.campaign import Campaign
from pytest_autoresearch.experiment import KEY, PROGRAM
from pytest_autoresearch.items import Baseline, Trial
from pytest_autoresearch.reporting.live import LiveLine
from pytest_autoresearch.reporting.results import summary
from pytest_autoresearch.repository import Repository, Unusable, one_line

if TYPE_CHECKING:
    from pytest_autoresearch.settings import Settings

STATE = ".autoresearch"  # in the root directory; ignores itself, as pytest's cache does
FRUITLESS = 10  # trials in a row without a score that end the campaign


class Research:
    """``--autoresearch``, a plugin of its own: it drives pytest through the trials of one campaign."""

    def __init__(self, config: pytest.Config, settings: Settings, agent: str) -> None:
        """Look whether the campaign can be worked on; change nothing yet.

        Raises:
            Unusable: it cannot.
        """
        self._config = config
        self._settings = settings
        self._agent = agent
        repository = Repository.of(settings.script)
        tag = settings.tag or _tag_of(repository.branch()) or _today()
        state = config.rootpath / STATE / tag
        self.campaign = Campaign(repository, tag, state, config.rootpath / "results.tsv")
        self.campaign.check_clean()

    def pytest_report_header(self) -> str:
        """Say who works on what, and for how long."""
        trials = self._settings.trials
        amount = "until stopped" if trials is None else f"trials: {trials}"
        return f"campaign: {self.campaign.branch}, agent: {self._agent}, {amount}"

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """Run the baseline as pytest would, then the trials."""
        if KEY not in session.stash:  # only collecting
            return (yield)
        try:
            self.campaign.open()
            session.testscollected += self._settings.trials or 0  # what the percentage is of
            result = yield
            if not session.testsfailed:
                [item] = session.items
                assert isinstance(item, Baseline)
                self.campaign.begin(session.stash[KEY], tuple(item.measured))
                self._conduct(session, item)
        except Unusable as error:
            pytest.exit(str(error), returncode=pytest.ExitCode.USAGE_ERROR)
        session.testscollected = len(session.items)
        return result

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what came of it, over all sessions of the campaign."""
        if hasattr(self.campaign, "ledger"):
            terminalreporter.write_sep("=", f"autoresearch {self.campaign.tag}")
            for line in summary(self.campaign, self._settings.metric):
                terminalreporter.write_line(line)

    def _conduct(self, session: pytest.Session, sibling: Baseline) -> None:
        hours = self._settings.hours
        deadline = None if hours is None else time.monotonic() + 3600 * hours
        done = 0
        while done != self._settings.trials and (deadline is None or time.monotonic() < deadline):
            trial = self._next(session, sibling)
            if trial is None:
                break
            done += 1
            session.items.append(trial)
            session.testscollected = max(session.testscollected, len(session.items))
            # The sibling keeps pytest from tearing down what both stand on.
            self._config.hook.pytest_runtest_protocol(item=trial, nextitem=sibling)
            if session.shouldstop:
                raise session.Interrupted(session.shouldstop)
            if reason := session.shouldfail or self._cannot_go_on(trial):
                session.shouldfail = reason
                raise session.Failed(reason)

    def _next(self, session: pytest.Session, sibling: Baseline) -> Trial | None:
        briefing = self._briefing(session)
        try:
            with LiveLine(self._config, "agent") as live:
                live.update(f"trial {briefing.number}: asking for a proposal")
                proposal = self._config.hook.pytest_autoresearch_propose(
                    config=self._config, briefing=briefing
                )
        except Exception as error:
            session.shouldfail = f"no proposal: {type(error).__name__}: {one_line(str(error))}"
            raise session.Failed(session.shouldfail) from error
        if proposal is None:
            return None
        description = one_line(proposal.description) or "no description"
        name = f"trial[{briefing.number:04d}-{slug(description)}]"
        assert sibling.parent is not None
        trial: Trial = Trial.from_parent(
            sibling.parent,
            name=name,
            nodeid=f"{sibling.parent.nodeid}::{name}",
            proposal=Proposal(proposal.source, description),
            number=briefing.number,
            campaign=self.campaign,
        )
        return trial

    def _briefing(self, session: pytest.Session) -> Briefing:
        experiment, campaign = session.stash[KEY], self.campaign
        return Briefing(
            tag=campaign.tag,
            number=campaign.next_number,
            program=experiment.committed(PROGRAM),
            fixed=experiment.fixed,
            script=experiment.script(),
            start=campaign.start,
            history=tuple(campaign.ledger.entries),
            score=campaign.incumbent.mean,
            noise=campaign.incumbent.noise.spread,
            metric=self._settings.metric,
            direction=self._settings.direction,
            platform=experiment.platform,
        )

    def _cannot_go_on(self, trial: Trial) -> str | None:
        if trial.decision is None:
            return f"{trial.name} has no verdict"
        last = self.campaign.ledger.entries[-FRUITLESS:]
        if len(last) == FRUITLESS and all(entry.score is None for entry in last):
            return f"{FRUITLESS} trials in a row gave no score, the last one: {last[-1].reason}"
        return None


def slug(description: str) -> str:
    """Return *description* as part of a node id: lower case, digits, dots and dashes."""
    text = re.sub(r"[^a-z0-9.]+", "-", description.lower().replace("->", " ").replace("_", "-"))
    return text.strip("-.")[:40].rstrip("-.") or "change"


def _tag_of(branch: str | None) -> str | None:
    prefix, _, tag = (branch or "").partition("/")
    return tag if prefix == "autoresearch" else None


def _today() -> str:
    # Upstream's form: mar5.
    today = dt.datetime.now().astimezone()
    return f"{today:%b}{today.day}".lower()
