"""Whatever makes proposals, and what it is told."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

DEFAULT = "tuner"


def register(name: str | None, plugins: pytest.PytestPluginManager) -> str:
    """Register the agent *name* as a plugin that implements ``pytest_autoresearch_propose``, and say which.

    Without a name an agent of the project's own, in its ``conftest.py``, stands alone.

    Raises:
        pytest.UsageError: there is no such agent, or a package that it needs is missing.
    """
    import pytest

    if name is None and plugins.hook.pytest_autoresearch_propose.get_hookimpls():
        return "the project's own"
    if name not in (None, DEFAULT):
        msg = f"there is no agent {name!r}: choose {DEFAULT}"
        raise pytest.UsageError(msg)
    if find_spec("optuna") is None:
        msg = "the tuner needs optuna: pip install 'pytest-autoresearch[tuner]'"
        raise pytest.UsageError(msg)
    from pytest_autoresearch.agents.tuner import Tuner

    plugins.register(Tuner(), "autoresearch-tuner")
    return DEFAULT
