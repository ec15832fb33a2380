"""A client of the Messages API, with retries until a deadline."""

from __future__ import annotations

import contextlib
import email.utils
import os
import random
import threading
import time
from typing import Any

import anthropic
import httpx2
from anthropic.types import Message

from pytest_autoresearch.errors import AgentUnavailable, NoAnswer, UsageError
from pytest_autoresearch.text import single_line

TIMEOUT = 300.0  # seconds for one request
BACKOFF = 0.5  # seconds; doubled with each failure
LONGEST = 60.0  # seconds between two attempts, unless the server asks for more
HOME = "https://api.anthropic.com"
PLACEHOLDER = "none"  # for a key, where a server needs none and the SDK insists
ATTEMPTS = 5  # if the server never answered: a wrong address is as likely as an outage
HINTS = {
    401: "check the key in ANTHROPIC_API_KEY",
    402: "the account has to be paid for",
    403: "the key may not do this",
    404: "check the model, claude:MODEL or ANTHROPIC_MODEL, and ANTHROPIC_BASE_URL, which ends before /v1",
}


class Endpoint:
    """Answers requests, and retries those that may succeed later.

    The address and the key come from ``ANTHROPIC_BASE_URL``, ``ANTHROPIC_API_KEY`` and
    ``ANTHROPIC_AUTH_TOKEN``, or from a profile of the SDK. A server at another base URL may need no key.
    """

    def __init__(self) -> None:
        """Read the address and the key; make no request.

        Raises:
            UsageError: there is no key, or the address is invalid.
        """
        own = os.environ.get("ANTHROPIC_BASE_URL")
        keyless = not (os.environ.get("ANTHROPIC_API_KEY") or os.environ.get("ANTHROPIC_AUTH_TOKEN"))
        try:
            self._client = client = anthropic.Anthropic(
                api_key=PLACEHOLDER if own and keyless else None,
                base_url=HOME if own == "" else None,  # the SDK takes an empty variable for an address
                max_retries=0,
                http_client=anthropic.DefaultHttpxClient(event_hooks={"response": [_read]}),
            )
        except (anthropic.AnthropicError, httpx2.InvalidURL, ValueError) as error:
            raise UsageError(f"the agent claude cannot start: {error}") from error
        if client.base_url.scheme not in {"http", "https"} or not client.base_url.host:
            raise UsageError(f"ANTHROPIC_BASE_URL is no http address: {client.base_url}")
        if not (client.api_key or client.auth_token or client.credentials):
            hint = "set ANTHROPIC_API_KEY, or ANTHROPIC_BASE_URL to a server that needs none"
            raise UsageError("the agent claude needs a key", hint=hint)
        self._secrets = {secret for secret in (client.api_key, client.auth_token) if secret} - {PLACEHOLDER}
        if not all(secret.isascii() and secret.isprintable() for secret in self._secrets):
            raise UsageError("the agent claude's key holds a character that is in no key")
        self._answered = False  # whether the server has ever answered
        self._closed = threading.Event()

    def ask(self, deadline: float, **request: Any) -> Message:
        """Return the answer to *request*, with retries until *deadline* on the monotonic clock.

        Raises:
            NoAnswer: there is none; AgentUnavailable if there will be none in this session.
        """
        attempts = 0
        while (left := deadline - time.monotonic()) > 0 and not self._closed.is_set():
            try:
                return self._asked(min(TIMEOUT, left), request)
            except (anthropic.AnthropicError, httpx2.HTTPError, ValueError, RecursionError) as error:
                attempts += 1
                wait = self._wait(error, attempts, deadline)
            self._closed.wait(min(wait, threading.TIMEOUT_MAX))
        raise NoAnswer("pytest ends" if self._closed.is_set() else "no answer in time")

    def close(self) -> None:
        """Cancel requests and waits."""
        self._closed.set()
        self._client.close()

    def _asked(self, timeout: float, request: dict[str, Any]) -> Message:
        # The SDK does not check that the answer has the types that it declares.
        answer: object = self._client.messages.create(**request, timeout=timeout)
        if not isinstance(answer, Message) or not _is_whole(answer):
            raise ValueError("the server does not speak the Messages API")
        self._answered = True
        return answer

    def _wait(self, error: Exception, attempts: int, deadline: float) -> float:
        """Return the seconds to wait after *error* before the next attempt; raise NoAnswer if none helps."""
        said, asked = self._told(error), 0.0
        if isinstance(error, anthropic.APIStatusError):
            self._answered = True
            if error.status_code in HINTS:
                raise AgentUnavailable(f"{said}; {HINTS[error.status_code]}") from error
            headers = error.response.headers
            passing = error.status_code in {408, 409, 429} or error.status_code >= 500
            if not passing or headers.get("x-should-retry") == "false":
                raise NoAnswer(said) from error
            asked = _retry_after(headers)
        elif isinstance(error, anthropic.APIConnectionError | httpx2.HTTPError):
            if not self._answered and attempts >= ATTEMPTS:
                raise NoAnswer(f"{self._client.base_url.host} cannot be reached: {said}") from error
        elif attempts >= ATTEMPTS:
            raise NoAnswer(said) from error
        left = deadline - time.monotonic()
        if asked > left:
            raise NoAnswer(f"{said}; it asks to wait {asked:.0f} seconds, and {left:.0f} are left") from error
        backoff = min(BACKOFF * 2.0 ** min(attempts - 1, 20), LONGEST) * random.uniform(0.5, 1)
        if backoff > left:
            raise NoAnswer(f"{said}, {attempts} times until its time was over") from error
        return max(asked, backoff)

    def _told(self, error: Exception) -> str:
        """Return *error* in one line without the key, which a server may repeat."""
        text = str(error)
        if isinstance(error, anthropic.APIStatusError):
            text = f"{error.status_code} {error.api_message or error.message}"
        elif isinstance(error, anthropic.APIConnectionError) and error.__cause__:
            text = f"{text} {error.__cause__}"
        for secret in self._secrets:
            text = text.replace(secret, "…")
        return single_line(text, 160) or type(error).__name__


def _is_whole(answer: Message) -> bool:
    """Tell whether *answer* is a message: the SDK accepts any JSON object."""
    blocks = answer.content
    return isinstance(blocks, list) and all(
        isinstance(getattr(block, "type", None), str)
        and (block.type != "tool_use" or isinstance(getattr(block, "id", None), str))
        for block in blocks
    )


def _retry_after(headers: httpx2.Headers) -> float:
    """Return the seconds that a server asks to wait; 0 if it does not ask, or asks for the past."""
    text = headers.get("retry-after", "")
    with contextlib.suppress(ValueError):
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        if text[:1].isalpha():
            return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
        return max(0.0, float(text))
    return 0.0


def _read(response: httpx2.Response) -> None:
    """Read a whole answer within the request's time: httpx limits the time between two bytes only."""
    deadline = time.monotonic() + response.request.extensions["timeout"]["read"]
    stream, parts = response.stream, []
    assert isinstance(stream, httpx2.SyncByteStream)
    for part in stream:
        if time.monotonic() > deadline:
            raise httpx2.ReadTimeout("the answer does not end")
        parts.append(part)
    stream.close()
    response.stream = httpx2.ByteStream(b"".join(parts))
