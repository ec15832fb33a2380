"""The prices of models: lines of the user's, else those of the package genai-prices."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence

from pytest_autoresearch.errors import UsageError
from pytest_autoresearch.records.proposal import Usage


@dataclasses.dataclass(frozen=True, slots=True)
class OwnPrice:
    """US dollars per million tokens of each kind."""

    input: float
    output: float
    cache_write: float
    cache_read: float

    def cost(self, usage: Usage) -> float:
        """Return the US dollars of one request."""
        inputs = self.input * usage.input_tokens + self.output * usage.output_tokens
        cached = self.cache_write * usage.cache_write_tokens + self.cache_read * usage.cache_read_tokens
        return (inputs + cached) / 1e6


@dataclasses.dataclass(frozen=True, slots=True)
class ListPrice:
    """The price of one of Anthropic's models today, by genai-prices."""

    model: str

    def cost(self, usage: Usage) -> float:
        """Return the US dollars of one request, whose cache writes are kept for an hour.

        Raises:
            LookupError: the model is unknown.
        """
        import genai_prices  # with pydantic, which takes a second

        cached = usage.cache_write_tokens + usage.cache_read_tokens
        tokens = genai_prices.Usage(
            input_tokens=usage.input_tokens + cached,
            cache_write_tokens=usage.cache_write_tokens,
            cache_write_1h_tokens=usage.cache_write_tokens,
            cache_read_tokens=usage.cache_read_tokens,
            output_tokens=usage.output_tokens,
        )
        return float(genai_prices.calc_price(tokens, self.model, provider_id="anthropic").total_price)


def price_of(model: str, lines: Sequence[str]) -> OwnPrice | ListPrice | None:
    """Return the price of *model*, which *lines* of the user overrule; None if it is unknown.

    A name stands for its dated versions too: ``claude-opus-5`` for ``claude-opus-5-20260701``.

    Raises:
        UsageError: a line cannot be read.
    """
    own = dict(map(_parsed, lines))
    for name in (model, re.sub(r"[-@]\d{8}$", "", model)):
        if name in own:
            return own[name]
    listed = ListPrice(model)
    try:
        listed.cost(Usage())
    except LookupError:
        return None
    return listed


def _parsed(line: str) -> tuple[str, OwnPrice]:
    """Return the model and the price of a line ``MODEL INPUT OUTPUT [CACHE_WRITE CACHE_READ]``.

    Without the last two, a cache write costs twice as much as input, and a cache read a tenth.
    """
    model, *words = line.split()
    try:
        amounts = [float(word) for word in words]
    except ValueError:
        amounts = []
    if len(amounts) not in {2, 4} or not all(0 <= amount < math.inf for amount in amounts):
        raise UsageError(
            f"autoresearch_prices: {line!r} is not MODEL INPUT OUTPUT [CACHE_WRITE CACHE_READ], "
            "in dollars for a million tokens"
        )
    amount, output, write, read = [*amounts, 2 * amounts[0], amounts[0] / 10][:4]
    return model, OwnPrice(amount, output, write, read)
