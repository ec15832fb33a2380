"""Whatever makes proposals, and what it is told."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

TUNER = "autoresearch-tuner"  # the plugin's name


def register(name: str | None, plugins: pytest.PytestPluginManager) -> str:
    """Register the agent *name*, the tuner by default, and return what to call it.

    Raises:
        pytest.UsageError: there is no such agent, or a package that it needs is missing.
    """
    import pytest

    if name is None and has_own(plugins):
        return "the project's own"
    if name not in (None, "tuner"):
        msg = f"there is no agent {name!r}: choose tuner"
        raise pytest.UsageError(msg)
    if find_spec("optuna") is None:
        msg = "the tuner needs optuna: pip install 'pytest-autoresearch[tuner]'"
        raise pytest.UsageError(msg)
    from pytest_autoresearch.agents.tuner import Tuner

    plugins.register(Tuner(), TUNER)
    return "tuner"


def has_own(plugins: pytest.PytestPluginManager) -> bool:
    """Tell whether a ``conftest.py`` or another plugin brings an agent."""
    agents = plugins.hook.pytest_autoresearch_propose.get_hookimpls()
    return any(agent.plugin_name != TUNER for agent in agents)
