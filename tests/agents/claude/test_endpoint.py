"""A server that fails is asked again, for as long as there is time."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from werkzeug import Response

from pytest_autoresearch.errors import AgentUnavailable, NoAnswer
from tests.agents.claude.asking import Make, brief, refused
from tests.anthropic_server import (
    COST,
    KEY,
    AnthropicServer,
    as_json,
    change,
    edit,
    failure,
    message,
    raw_server,
    reset,
)


@pytest.fixture
def attempts() -> int:
    """How often a server that was never heard is tried."""
    from pytest_autoresearch.agents.claude import endpoint  # where the SDK is, which takes a second to import

    return endpoint.ATTEMPTS


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
def test_what_passes_is_asked_again(server: AnthropicServer, make: Make, status: int) -> None:
    server.says(failure(status), failure(status, retry_after_ms="1"), change("0.04", "0.05"))
    proposal = make().propose(brief())
    assert proposal is not None
    assert len(server.asked) == 3
    assert proposal.usage.calls == 1


@pytest.mark.parametrize(
    "answer",
    [
        Response("<html>sign in</html>", content_type="text/html"),
        as_json({"hello": "world"}),
        as_json(["an", "array"]),
        as_json(message("a text")),
        as_json(message({"type": "tool_use", "name": "edit", "input": {}})),
        as_json(message({"type": "text", "text": 7}, None)),
        Response("{", content_type="application/json"),
        Response("[" * 100_000, content_type="application/json"),
        Response("<html>bad gateway</html>", 502, content_type="text/html"),
    ],
    ids=["html", "object", "array", "no block", "no id", "null", "no json", "nested", "html 502"],
)
def test_an_answer_of_something_else_is_asked_again(
    server: AnthropicServer, make: Make, answer: Response
) -> None:
    server.says(answer, change("0.04", "0.05"))
    assert make().propose(brief())


def test_something_else_is_not_borne_for_ever(server: AnthropicServer, make: Make, attempts: int) -> None:
    server.says_as(lambda _: Response("<html>sign in</html>", content_type="text/html"))
    assert str(refused(make())) == "the server does not speak the Messages API"
    assert len(server.asked) == attempts


def test_it_waits_as_asked(server: AnthropicServer, make: Make) -> None:
    server.says(failure(429, retry_after_ms="300"), change("0.04", "0.05"))
    start = time.monotonic()
    assert make().propose(brief())
    assert time.monotonic() - start >= 0.3


def test_it_waits_longer_each_time(
    server: AnthropicServer, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_autoresearch.agents.claude.endpoint.BACKOFF", 0.1)
    server.says(*[failure(529, retry_after_ms="0")] * 3, change("0.04", "0.05"))
    start = time.monotonic()
    assert make().propose(brief())
    assert 0.35 <= time.monotonic() - start < 3


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry_after": "86400"}, "86400"),
        ({"retry_after_ms": "7200000", "retry_after": "1"}, "7200"),
        ({"retry_after": "Fri, 31 Dec 2027 23:59:59 GMT"}, r"\d+"),
    ],
    ids=["seconds", "milliseconds", "date"],
)
def test_a_wait_beyond_its_time_is_no_answer_at_once(
    server: AnthropicServer, make: Make, headers: dict[str, str], seconds: str
) -> None:
    server.says(failure(429, "slow down", **headers))
    reason = str(refused(make(timeout=60.0)))
    assert re.fullmatch(rf"429 slow down; it asks to wait {seconds} seconds, and 60 are left", reason)
    assert len(server.asked) == 1


@pytest.mark.parametrize("asked", ["soon", "-5", "nan", ""])
def test_a_wait_that_makes_no_sense_is_its_own(server: AnthropicServer, make: Make, asked: str) -> None:
    server.says(failure(429, retry_after=asked), change("0.04", "0.05"))
    assert make().propose(brief())


def test_an_outage_is_borne_until_its_time_is_over(
    server: AnthropicServer, make: Make, attempts: int
) -> None:
    server.says_as(lambda _: failure(529, "overloaded"))
    start = time.monotonic()
    error = refused(make(timeout=0.5))
    assert time.monotonic() - start < 1.5
    assert str(error).startswith("529 overloaded, ")
    assert len(server.asked) > attempts
    assert not isinstance(error, AgentUnavailable)


def test_what_was_spent_before_an_outage_counts(server: AnthropicServer, make: Make) -> None:
    server.says_as(lambda asked: failure(500) if asked.turn else message(edit("64", "32")))
    assert refused(make(timeout=0.3)).usage.cost == pytest.approx(COST)


@pytest.mark.parametrize(
    ("status", "part", "kind"),
    [
        (400, "400 not now", NoAnswer),
        (413, "413 not now", NoAnswer),
        (422, "422 not now", NoAnswer),
        (401, "401 not now; check the key in ANTHROPIC_API_KEY", AgentUnavailable),
        (402, "402 not now; the account has to be paid for", AgentUnavailable),
        (403, "403 not now; the key may not do this", AgentUnavailable),
        (404, "404 not now; check the model, claude:MODEL or ANTHROPIC_MODEL", AgentUnavailable),
    ],
)
def test_what_does_not_pass_is_asked_once(
    server: AnthropicServer, make: Make, status: int, part: str, kind: type[NoAnswer]
) -> None:
    server.says_as(lambda _: failure(status))
    error = refused(make())
    assert part in str(error)
    assert type(error) is kind
    assert len(server.asked) == 1


def test_a_server_may_say_that_it_does_not_pass(server: AnthropicServer, make: Make) -> None:
    server.says_as(lambda _: failure(429, "the month's limit", x_should_retry="false"))
    assert str(refused(make())) == "429 the month's limit"
    assert len(server.asked) == 1


def test_a_key_is_not_repeated(server: AnthropicServer, make: Make) -> None:
    server.says(failure(401, f"what is {KEY}?\nno"))
    assert str(refused(make())).startswith("401 what is …? no; ")


def replies(answer: Mapping[str, Any]) -> Callable[[socket.socket], None]:
    body = json.dumps(answer).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    return lambda connection: connection.sendall(head + body)


@pytest.mark.parametrize("begun", [(), (replies(message(edit("64", "32"))),)], ids=["at first", "later"])
def test_a_connection_that_is_reset_is_made_again(
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    begun: tuple[Callable[[socket.socket], None], ...],
    attempts: int,
) -> None:
    # A server that has answered is known to be there, and is tried for longer.
    resets = [reset] * (attempts + 1 if begun else 2)
    behaviour = iter([*begun, *resets, replies(change("0.04", "0.05"))])

    def behave(connection: socket.socket) -> None:
        next(behaviour)(connection)

    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    with raw_server(behave) as (url, seen):
        monkeypatch.setenv("ANTHROPIC_BASE_URL", url)
        assert make().propose(brief())
    assert len(seen) == len(begun) + len(resets) + 1


def test_an_address_that_never_answers_is_not_tried_for_ever(
    make: Make, monkeypatch: pytest.MonkeyPatch, attempts: int
) -> None:
    with raw_server(reset) as (url, seen):
        monkeypatch.setenv("ANTHROPIC_BASE_URL", url)
        error = refused(make())
        assert len(seen) == attempts
    assert str(error).startswith("127.0.0.1 cannot be reached: Connection error.")
    assert "cannot be reached" in str(refused(make()))  # now nobody listens there


@pytest.mark.parametrize("pause", [9.0, 0.05], ids=["silent", "slow"])
def test_an_answer_that_does_not_come_is_not_awaited_for_ever(
    make: Make, monkeypatch: pytest.MonkeyPatch, pause: float
) -> None:
    over = time.monotonic() + 5

    def behave(connection: socket.socket) -> None:
        connection.settimeout(pause)
        if pause < 1:
            connection.sendall(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 999\r\n\r\n"
            )
        while time.monotonic() < over:
            if pause < 1:
                connection.sendall(b" ")
            try:
                if not connection.recv(1):
                    return
            except TimeoutError:
                continue

    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    with raw_server(behave) as (url, _):
        monkeypatch.setenv("ANTHROPIC_BASE_URL", url)
        start = time.monotonic()
        claude = make(timeout=0.5)
        refused(claude)
        assert time.monotonic() - start < 2
        claude.close()


def test_closing_ends_what_is_waited_for(server: AnthropicServer, make: Make) -> None:
    server.says_as(lambda _: failure(529, retry_after="600"))
    claude = make()
    timer = threading.Timer(0.3, claude.close)
    timer.start()
    start = time.monotonic()
    assert str(refused(claude)) == "pytest ends"
    assert time.monotonic() - start < 3
    timer.join()
