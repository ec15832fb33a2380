"""Whatever makes proposals, and what it is told."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

    from pytest_autoresearch.agents.agent import Agent
    from pytest_autoresearch.agents.chain import AgentChain
    from pytest_autoresearch.settings import Settings

PANEL = "autoresearch-agents"  # the plugin's name


def register(settings: Settings, plugins: pytest.PytestPluginManager) -> AgentChain | None:
    """Register the agents that were asked for, the tuner by default; None if the project brings its own.

    Raises:
        pytest.UsageError: there is no such agent, or a package that it needs is missing.
    """
    from pytest_autoresearch.agents.chain import AgentChain

    if not settings.agents and has_own(plugins):
        return None
    panel = AgentChain([made(name, settings) for name in named(settings.agents or ("tuner",))])
    plugins.register(panel, PANEL)
    return panel


def has_own(plugins: pytest.PytestPluginManager) -> bool:
    """Tell whether a ``conftest.py`` or another plugin brings an agent."""
    agents = plugins.hook.pytest_autoresearch_propose.get_hookimpls()
    return any(agent.plugin_name != PANEL for agent in agents)


def named(asked: tuple[str, ...]) -> Iterator[str]:
    """Yield the agents one by one; commas part names, but not the words of a command line."""
    for text in asked:
        yield from [text] if is_command(text) else (name.strip() for name in text.split(","))


def is_command(text: str) -> bool:
    """Tell whether *text* is a command line: it has several words, or its one word is a path."""
    return any(len(part.split()) > 1 or "/" in part.partition(":")[0] for part in text.split(","))


def made(name: str, settings: Settings) -> Agent:
    """Return the agent *name*.

    Raises:
        pytest.UsageError: there is none, or a package that it needs is missing.
    """
    import pytest

    kind, _, rest = name.partition(":")
    if kind == "hybrid":
        from pytest_autoresearch.agents.hybrid import Hybrid

        require("numpy", "tuner")
        return Hybrid(made(rest or "claude", settings))
    if is_command(name):
        from pytest_autoresearch.agents.command.agent import Command

        return Command(name, settings)
    if name == "tuner":
        from pytest_autoresearch.agents.tuner.agent import Tuner

        require("numpy", "tuner")
        return Tuner()
    if kind == "claude":
        from pytest_autoresearch.agents.claude.agent import Claude

        require("anthropic", "claude")
        return Claude(rest, settings)
    raise pytest.UsageError(
        f"there is no agent {name!r}: choose tuner, claude, hybrid, or the command line of a coding agent"
    )


def require(package: str, extra: str) -> None:
    """Raise pytest.UsageError if *package*, which comes with *extra*, is not installed."""
    import pytest

    if find_spec(package) is None:
        raise pytest.UsageError(
            f"the agent {extra} needs {package}: pip install 'pytest-autoresearch[{extra}]'"
        )
