"""What these tests share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer

from pytest_autoresearch.agents.agent import AgentOptions
from pytest_autoresearch.agents.claude.agent import Claude
from tests.agents.claude.asking import Make
from tests.anthropic_server import KEY, AnthropicServer


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("ANTHROPIC_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))  # no profile of the SDK
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setattr("pytest_autoresearch.agents.claude.endpoint.BACKOFF", 0.002)


@pytest.fixture
def server(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> AnthropicServer:
    server = AnthropicServer(httpserver)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    return server


@pytest.fixture
def make(request: pytest.FixtureRequest) -> Make:
    def make(model: str = "", **changed: Any) -> Claude:
        claude = Claude(model, AgentOptions(script=Path("experiment/train.py"), **changed))
        request.addfinalizer(claude.close)
        return claude

    return make
