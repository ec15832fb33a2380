"""What models cost."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence

import pytest

from pytest_autoresearch.records.proposal import Usage

AS_OF = "2026-11"
"""The month of :data:`KNOWN`, which no program can keep up to date: ``autoresearch_prices`` overrules it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Price:
    """US dollars for a million tokens of each kind."""

    input: float
    output: float
    cache_write: float
    """What is kept for an hour."""
    cache_read: float
    long: Price | None = None
    """What a request of more than :data:`LONG` tokens costs instead."""

    def cost(self, usage: Usage) -> float:
        """Return the US dollars of one request."""
        prompt = usage.input_tokens + usage.cache_write_tokens + usage.cache_read_tokens
        if self.long is not None and prompt > LONG:
            return self.long.cost(usage)
        dollars = (
            self.input * usage.input_tokens
            + self.output * usage.output_tokens
            + self.cache_write * usage.cache_write_tokens
            + self.cache_read * usage.cache_read_tokens
        )
        return dollars / 1e6


LONG = 100_000

KNOWN: Mapping[str, Price] = {
    "claude-opus-5-5": Price(4, 20, 8, 0.2),
    "claude-opus-5": Price(5, 25, 10, 0.5),
    "claude-sonnet-5-5": Price(2, 10, 4, 0.1),
    "claude-haiku-5-5": Price(0.1, 0.5, 0.2, 0.01, long=Price(0.5, 2.5, 1, 0.05)),
}


def price_of(model: str, lines: Sequence[str]) -> Price | None:
    """Return the price of *model*: by a line of the user's, else by :data:`KNOWN`; None if nobody knows.

    A name stands for its dated versions, too: ``claude-opus-5`` for ``claude-opus-5-20260701``.

    Raises:
        pytest.UsageError: a line cannot be read.
    """
    own = dict(map(_parsed, lines))
    undated = re.sub(r"[-@]\d{8}$", "", model)
    for prices in (own, KNOWN):
        for name in (model, undated):
            if name in prices:
                return prices[name]
    return None


def _parsed(line: str) -> tuple[str, Price]:
    """Return the model and the price of a line ``MODEL INPUT OUTPUT [CACHE_WRITE CACHE_READ]``.

    Without the last two, to write costs twice as much as input, and to read a tenth.
    """
    model, *words = line.split()
    try:
        amounts = [float(word) for word in words]
    except ValueError:
        amounts = []
    if len(amounts) not in {2, 4} or not all(0 <= amount < math.inf for amount in amounts):
        raise pytest.UsageError(
            f"autoresearch_prices: {line!r} is not MODEL INPUT OUTPUT [CACHE_WRITE CACHE_READ], "
            "in dollars for a million tokens"
        )
    amount, output, write, read = [*amounts, 2 * amounts[0], amounts[0] / 10][:4]
    return model, Price(amount, output, write, read)
