"""The agents of ``--autoresearch-agent`` as hook implementations, asked after those of a ``conftest.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_autoresearch.agents.chain import AgentChain
from pytest_autoresearch.agents.registry import made, named

if TYPE_CHECKING:
    from pytest_autoresearch.agents.briefing import Briefing
    from pytest_autoresearch.records.proposal import Failure, Proposal
    from pytest_autoresearch.settings import Settings

PLUGIN = "autoresearch-agents"


class AgentHooks:
    """The hooks of an :class:`AgentChain`."""

    def __init__(self, chain: AgentChain) -> None:
        self._chain = chain

    @pytest.hookimpl(trylast=True)
    def pytest_autoresearch_propose(self, briefing: Briefing) -> Proposal | None:
        """Ask the chain."""
        return self._chain.propose(briefing)

    @pytest.hookimpl(trylast=True)
    def pytest_autoresearch_fix(self, briefing: Briefing, failure: Failure) -> Proposal | None:
        """Ask the author of the proposal."""
        return self._chain.fix(briefing, failure)

    def pytest_unconfigure(self) -> None:
        """Stop all agents."""
        self._chain.close()


def register(settings: Settings, plugins: pytest.PytestPluginManager) -> AgentChain | None:
    """Register the agents that were asked for, the tuner by default; None if the project brings its own.

    Raises:
        UsageError: there is no such agent, or it cannot start.
    """
    if not settings.agent_names and has_own(plugins):
        return None
    chain = AgentChain([made(name, settings.agents) for name in named(settings.agent_names or ("tuner",))])
    plugins.register(AgentHooks(chain), PLUGIN)
    return chain


def has_own(plugins: pytest.PytestPluginManager) -> bool:
    """Tell whether a ``conftest.py`` or another plugin brings an agent."""
    agents = plugins.hook.pytest_autoresearch_propose.get_hookimpls()
    return any(agent.plugin_name != PLUGIN for agent in agents)
