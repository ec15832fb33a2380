"""The model, the key and the server are the user's, and what is missing is told at the start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from pytest_autoresearch.errors import UsageError
from tests.agents.claude.asking import Make, brief
from tests.anthropic_server import KEY, AnthropicServer, change


@pytest.mark.parametrize(
    ("asked", "environment", "model"),
    [
        ("", {}, "claude-sonnet-5-5"),
        ("", {"ANTHROPIC_MODEL": "claude-opus-5"}, "claude-opus-5"),
        ("claude-haiku-5-5", {"ANTHROPIC_MODEL": "claude-opus-5"}, "claude-haiku-5-5"),
    ],
    ids=["default", "environment", "option"],
)
@pytest.mark.usefixtures("server")
def test_the_model_is_the_users(
    make: Make, monkeypatch: pytest.MonkeyPatch, asked: str, environment: Mapping[str, str], model: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert make(asked).name == f"claude:{model}"


def test_a_server_of_ones_own_needs_no_key(
    server: AnthropicServer, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    server.says(change("0.04", "0.05"))
    assert make("qwen3").propose(brief())
    assert server.asked[0].body["model"] == "qwen3"


def test_a_token_does_as_well_as_a_key(
    server: AnthropicServer, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", KEY)
    server.says(change("0.04", "0.05"))
    assert make().propose(brief())
    assert server.asked[0].headers["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("environment", "changed", "reason"),
    [
        ({"API_KEY": ""}, {}, "the agent claude needs a key: set ANTHROPIC_API_KEY, or ANTHROPIC_BASE_URL"),
        ({"API_KEY": f"{KEY}\n"}, {}, "the agent claude's key holds a character that is in no key"),
        ({"API_KEY": "", "AUTH_TOKEN": f"{KEY}ü"}, {}, "the agent claude's key holds a character"),
        ({"BASE_URL": "localhost:8000"}, {}, "ANTHROPIC_BASE_URL is no http address: localhost:8000"),
        ({"BASE_URL": "http://localhost:port"}, {}, "the agent claude cannot start: "),
        ({}, {"effort": "much"}, "one of low, medium, high, xhigh, max, none, not 'much'"),
        ({}, {"prices": ("qwen3",)}, "autoresearch_prices: 'qwen3' is not MODEL INPUT"),
        (
            {"MODEL": "qwen3"},
            {"max_cost": 1.0},
            "--autoresearch-max-cost needs the price of qwen3: set autoresearch_prices = qwen3 INPUT OUTPUT",
        ),
    ],
    ids=["none", "line end", "umlaut", "address", "port", "effort", "prices", "price"],
)
def test_what_is_missing_is_told_at_the_start(
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    environment: Mapping[str, str],
    changed: Mapping[str, Any],
    reason: str,
) -> None:
    for name, value in {"API_KEY": KEY, **environment}.items():
        monkeypatch.setenv(f"ANTHROPIC_{name}", value)
    with pytest.raises(UsageError) as caught:
        make(**changed)
    assert reason in str(caught.value)
    assert KEY not in str(caught.value)
    assert "\n" not in str(caught.value)
