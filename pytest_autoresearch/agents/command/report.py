"""The report that a coding agent prints at its end: its answer and its usage."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pytest_autoresearch.agents.budget import stated_usage
from pytest_autoresearch.records.proposal import Usage
from pytest_autoresearch.text import single_line

LAST = 100  # lines that may hold the result


class AgentReport(NamedTuple):
    """The answer of an agent, empty if it was not printed as JSON, and the usage that Claude Code states."""

    text: str = ""
    usage: Usage = Usage()

    @classmethod
    def of(cls, output: str) -> AgentReport:
        """Return the report in *output*: the last one in a JSON object, a list of them, or one a line."""
        for document in _documents(output):
            for text in (document.get("result"), document.get("response")):  # of Claude Code, of Gemini
                if isinstance(text, str):
                    calls, cost = document.get("num_turns"), document.get("total_cost_usd")
                    return cls(text, stated_usage(document, calls, cost))
        return cls()


def first_line(text: str) -> str:
    """Return the first line of *text* that is not blank, empty if there is none."""
    return single_line("".join(text.strip().splitlines()[:1]))


def last_line(text: str) -> str:
    """Return the last line of *text* that is not blank, empty if there is none."""
    return single_line("".join(text.strip().splitlines()[-1:]))


def is_json(line: str) -> bool:
    """Tell whether *line* looks like JSON."""
    return line[:1] in {"{", "[", "}", "]"}


def _documents(output: str) -> Iterator[Mapping[str, Any]]:
    lines = output.strip().splitlines()
    opening = next((number for number, line in enumerate(lines) if is_json(line)), len(lines))
    for piece in ("\n".join(lines[opening:]), *reversed(lines[-LAST:])):
        if is_json(piece):
            with contextlib.suppress(ValueError, RecursionError):
                found = json.loads(piece)
                items = reversed(found) if isinstance(found, list) else [found]
                yield from (item for item in items if isinstance(item, dict))
