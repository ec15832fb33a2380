"""What models cost is known, and may be overruled."""

from __future__ import annotations

import pytest

from pytest_autoresearch.agents.claude.prices import ListPrice, OwnPrice, price_of
from pytest_autoresearch.errors import UsageError
from pytest_autoresearch.records.proposal import Usage


def test_each_kind_of_token_has_its_price() -> None:
    price = OwnPrice(input=2, output=10, cache_write=4, cache_read=0.5)
    usage = Usage(input_tokens=1_000, output_tokens=2_000, cache_write_tokens=3_000, cache_read_tokens=4_000)
    assert price.cost(usage) == pytest.approx((2 * 1 + 10 * 2 + 4 * 3 + 0.5 * 4) / 1e3)
    assert price.cost(Usage()) == 0


def test_a_listed_price_counts_each_kind_of_token_once() -> None:
    usage = Usage(input_tokens=1_000, output_tokens=2_000, cache_write_tokens=3_000, cache_read_tokens=4_000)
    price = ListPrice("claude-sonnet-5-5")
    assert price.cost(usage) == pytest.approx((2 * 1 + 10 * 2 + 4 * 3 + 0.1 * 4) / 1e3)
    assert price.cost(Usage()) == 0


def test_a_long_request_has_another_price() -> None:
    price = ListPrice("claude-haiku-5-5")
    assert price.cost(Usage(input_tokens=60_000, cache_read_tokens=40_000)) == pytest.approx(0.0064)
    assert price.cost(Usage(input_tokens=60_001, cache_read_tokens=40_000)) == pytest.approx(
        5 * 0.0064, rel=1e-4
    )


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("claude-sonnet-5-5", "claude-sonnet-5-5"),
        ("claude-sonnet-5-5-20261001", "claude-sonnet-5-5"),
        ("claude-opus-5@20260701", "claude-opus-5"),
        ("claude-opus-5-5", "claude-opus-5-5"),
    ],
)
def test_a_dated_name_is_known(model: str, name: str) -> None:
    price, named = price_of(model, ()), price_of(name, ())
    assert price is not None
    assert named is not None
    usage = Usage(1, 10_000, 20_000, 30_000, 40_000)
    assert price.cost(usage) == named.cost(usage) > 0


@pytest.mark.parametrize("model", ["claude-opus-5-9", "claude-opus-50", "claude-opus-5-2026", "qwen3", ""])
def test_another_model_is_not(model: str) -> None:
    assert price_of(model, ()) is None


def test_a_line_overrules_what_is_known() -> None:
    lines = ["claude-sonnet-5-5 3 15", "qwen3 0 0", "mine 1 2 1.25 0.2", "mine-20261101 9 9"]
    assert price_of("claude-sonnet-5-5", lines) == OwnPrice(3, 15, 6, 0.3)
    assert price_of("claude-sonnet-5-5-20261001", lines) == OwnPrice(3, 15, 6, 0.3)
    assert price_of("qwen3", lines) == OwnPrice(0, 0, 0, 0)
    assert price_of("mine", lines) == OwnPrice(1, 2, 1.25, 0.2)
    assert price_of("mine-20261101", lines) == OwnPrice(9, 9, 18, 0.9)
    assert price_of("claude-opus-5", lines) == ListPrice("claude-opus-5")


@pytest.mark.parametrize(
    "line",
    ["mine", "mine 1", "mine 1 2 3", "mine 1 2 3 4 5", "mine one 2", "mine -1 2", "mine nan 2", "mine 1 inf"],
)
def test_a_line_that_cannot_be_read_is_one_clear_line(line: str) -> None:
    with pytest.raises(UsageError) as caught:
        price_of("claude-sonnet-5-5", [line])
    assert str(caught.value) == (
        f"autoresearch_prices: {line!r} is not MODEL INPUT OUTPUT [CACHE_WRITE CACHE_READ], "
        "in dollars for a million tokens"
    )
