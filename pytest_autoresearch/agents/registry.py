"""The agents by the names that a user gives them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING

from pytest_autoresearch.errors import UsageError

if TYPE_CHECKING:
    from pytest_autoresearch.agents.agent import Agent, AgentOptions


def named(asked: Iterable[str]) -> Iterator[str]:
    """Yield the agents one by one; commas separate names, but not the words of a command line."""
    for text in asked:
        yield from [text] if is_command(text) else (name.strip() for name in text.split(","))


def is_command(text: str) -> bool:
    """Tell whether *text* is a command line: it has several words, or its one word is a path."""
    return any(len(part.split()) > 1 or "/" in part.partition(":")[0] for part in text.split(","))


def made(name: str, options: AgentOptions) -> Agent:
    """Return a new agent of this *name*.

    Raises:
        UsageError: there is none, it cannot start, or a package that it needs is missing.
    """
    kind, _, rest = name.partition(":")
    if kind == "hybrid":
        from pytest_autoresearch.agents.hybrid import Hybrid

        _require("tuner", "numpy")
        return Hybrid(made(rest or "claude", options))
    if is_command(name):
        from pytest_autoresearch.agents.command.agent import Command

        return Command(name, options)
    if name == "tuner":
        from pytest_autoresearch.agents.tuner.agent import Tuner

        _require("tuner", "numpy")
        return Tuner()
    if kind == "claude":
        from pytest_autoresearch.agents.claude.agent import Claude

        _require("claude", "anthropic", "genai_prices")
        return Claude(rest, options)
    hint = "choose tuner, claude, hybrid, or the command line of a coding agent"
    raise UsageError(f"there is no agent {name!r}", hint=hint)


def _require(extra: str, *packages: str) -> None:
    for package in packages:
        if find_spec(package) is None:
            hint = f"pip install 'pytest-autoresearch[{extra}]'"
            raise UsageError(f"the agent {extra} needs {package}", hint=hint)
