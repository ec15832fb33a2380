"""The report that a coding agent prints at its end: its answer and its usage."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from pytest_autoresearch.records.proposal import Usage

LAST = 100  # lines that may hold the result
TEXTS = ("result", "response")  # the keys of the answer of Claude Code and of Gemini


@dataclasses.dataclass(frozen=True, slots=True)
class AgentReport:
    """The answer and the usage of an agent."""

    text: str = ""
    """Its answer; empty if it was not printed as JSON."""
    usage: Usage = Usage()  # noqa: RUF009 - it is frozen
    """Its own statement; other agents than Claude Code state none that is understood."""

    @classmethod
    def of(cls, output: str) -> AgentReport:
        """Return the report in *output*: a JSON object, a list of them, or one a line; the last counts.

        Other lines before and after it are ignored.
        """
        for document in _documents(output):
            for key in TEXTS:
                if isinstance(text := document.get(key), str):
                    return cls(text, _usage(document))
        return cls()


def first_line(text: str) -> str:
    """Return the first line of *text* that is not blank, empty if there is none."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def last_line(output: str) -> str:
    """Return the last line of *output* that is not blank, empty if there is none."""
    return next((line.strip() for line in reversed(output.splitlines()) if line.strip()), "")


def is_json(line: str) -> bool:
    """Tell whether *line* looks like JSON."""
    return line[:1] in {"{", "[", "}", "]"}


def _documents(output: str) -> Iterator[Mapping[str, Any]]:
    lines = output.strip().splitlines()
    opening = next((number for number, line in enumerate(lines) if is_json(line)), len(lines))
    pieces = ["\n".join(lines[opening:]), *reversed(lines[-LAST:])]
    for piece in pieces:
        if is_json(piece):
            with contextlib.suppress(ValueError, RecursionError):
                found = json.loads(piece)
                items = reversed(found) if isinstance(found, list) else [found]
                yield from (item for item in items if isinstance(item, dict))


def _usage(document: Mapping[str, Any]) -> Usage:
    """Return the usage in a result of Claude Code, zeros for any other."""
    tokens = document.get("usage")
    tokens = tokens if isinstance(tokens, dict) else {}
    cost = document.get("total_cost_usd")
    return Usage(
        calls=_count(document.get("num_turns")),
        input_tokens=_count(tokens.get("input_tokens")),
        cache_write_tokens=_count(tokens.get("cache_creation_input_tokens")),
        cache_read_tokens=_count(tokens.get("cache_read_input_tokens")),
        output_tokens=_count(tokens.get("output_tokens")),
        cost=float(cost) if isinstance(cost, int | float) and 0 <= cost < math.inf else 0.0,
    )


def _count(value: object) -> int:
    return value if type(value) is int and value >= 0 else 0
