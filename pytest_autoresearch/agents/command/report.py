"""What a coding agent prints at its end: what it has done, and what that has cost."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from pytest_autoresearch.records.proposal import Usage

LAST = 100  # lines that may hold the result
TEXTS = ("result", "response")  # what Claude Code and Gemini call their answer


@dataclasses.dataclass(frozen=True, slots=True)
class AgentReport:
    """An agent's last words."""

    text: str = ""
    """Its answer; empty if it was not printed as JSON."""
    usage: Usage = Usage()  # noqa: RUF009 - it is frozen
    """What it says that it has used."""

    @classmethod
    def of(cls, output: str) -> AgentReport:
        """Return what the JSON in *output* says: an object, a list of them, or one a line; the last counts.

        Lines before and after it are overlooked.
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
    """Tell whether *line* looks like JSON, and not like something that was written for people."""
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
    """Return the figures in the result of Claude Code; those of others are not known."""
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
