"""pytest around a loop: hooks are asked and told, trials become tests, and the screen shows what goes on."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import pytest

from pytest_autoresearch.errors import LoopFailed, StorageError
from pytest_autoresearch.plugin.progress import LiveLine
from pytest_autoresearch.plugin.translation import exits_pass
from pytest_autoresearch.plugin.trial import TrialItem

if TYPE_CHECKING:
    from pytest_autoresearch.agents.briefing import Briefing
    from pytest_autoresearch.agents.chain import AgentChain
    from pytest_autoresearch.plugin.baseline import BaselineItem
    from pytest_autoresearch.records.proposal import Failure, Proposal
    from pytest_autoresearch.records.trial import Trial
    from pytest_autoresearch.settings import Settings


class SessionHost:
    """The :class:`~pytest_autoresearch.loop.loop.Host` of a pytest session."""

    def __init__(
        self, session: pytest.Session, baseline: BaselineItem, chain: AgentChain | None, settings: Settings
    ) -> None:
        self._session = session
        self._config = session.config
        self._baseline = baseline
        self._chain = chain
        self._metric = settings.spec.metric
        self._is_endless = settings.trials is None
        self._live = LiveLine(session.config, "trial")

    def propose(self, briefing: Briefing) -> Proposal | None:
        """Ask the hook ``pytest_autoresearch_propose``."""
        with exits_pass(), LiveLine(self._config, "agent") as live:
            live.update(f"trial {briefing.number}: asking for a proposal")
            answer: Proposal | None = self._config.hook.pytest_autoresearch_propose(
                config=self._config, briefing=briefing
            )
        return answer

    def repair(self, briefing: Briefing, failure: Failure) -> Proposal | None:
        """Ask the hook ``pytest_autoresearch_fix``."""
        with exits_pass(), LiveLine(self._config, f"trial {briefing.number}") as live:
            live.update(f"{failure.reason}: asking for a repair")
            answer: Proposal | None = self._config.hook.pytest_autoresearch_fix(
                config=self._config, briefing=briefing, failure=failure
            )
        return answer

    def prefetch(self, briefing: Briefing) -> None:
        """Let the agents of the command line start on the next proposal."""
        if self._chain is not None:
            self._chain.prefetch(briefing)

    def show(self, name: str, line: str) -> None:
        """Show a line of a run on the live line."""
        self._live.quote(line, name)

    def idle(self) -> None:
        """Store the cost of a prefetched answer as soon as it is there: a kill must not lose it."""
        if self._chain is not None:
            self._chain.budget.record()

    def report(self, trial: Trial, started: float, stopped: float) -> None:
        """Run the trial's test, and call the hook ``pytest_autoresearch_decided``.

        Raises:
            LoopFailed: a hook failed.
        """
        self._live.clear()
        session, parent = self._session, self._baseline.parent
        assert parent is not None
        name = f"trial[{trial.number:04d}-{slug(trial.description)}]"
        item: TrialItem = TrialItem.from_parent(
            parent,
            name=name,
            nodeid=f"{parent.nodeid}::{name}",
            trial=trial,
            times=(started, stopped),
            metric=self._metric,
        )
        if self._is_endless:
            session.testscollected += 1
        # The next item keeps pytest from tearing down what both stand on.
        self._config.hook.pytest_runtest_protocol(item=item, nextitem=self._baseline)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        try:
            self._config.hook.pytest_autoresearch_decided(config=self._config, trial=trial)
        except (pytest.exit.Exception, StorageError):
            raise
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
            raise LoopFailed(f"pytest_autoresearch_decided failed after {name}: {problem}") from error

    def wait(self, seconds: float) -> None:
        """Wait, and say so."""
        with LiveLine(self._config, "agent") as live:
            live.update(f"no answer: asking again in {seconds:.0f} s")
            time.sleep(seconds)


def slug(description: str) -> str:
    """Return *description* as part of a node id: lower case, digits, dots and dashes."""
    text = re.sub(r"[^a-z0-9.]+", "-", description.lower().replace("->", " ").replace("_", "-"))
    return text.strip("-.")[:40].rstrip("-.") or "change"
