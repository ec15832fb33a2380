"""A server on the loopback interface that speaks Anthropic's Messages API, and says what a test wants."""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

KEY = "sk-loopback-0123456789"
USAGE = {
    "input_tokens": 1_000,
    "cache_creation_input_tokens": 2_000,
    "cache_read_input_tokens": 3_000,
    "output_tokens": 400,
}
COST = (2 * 1_000 + 4 * 2_000 + 0.1 * 3_000 + 10 * 400) / 1e6  # of one answer, in dollars

Answer = Mapping[str, Any] | Response
Answerer = Callable[["Asked"], Answer]


class Asked:
    """One request, as the model would read it."""

    def __init__(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> None:
        self.body = body
        self.headers = headers

    @property
    def messages(self) -> list[Mapping[str, Any]]:
        """The conversation so far."""
        messages: list[Mapping[str, Any]] = self.body["messages"]
        return messages

    @property
    def told(self) -> str:
        """What the conversation began with."""
        text = self.messages[0]["content"]
        assert isinstance(text, str)
        return text

    @property
    def turn(self) -> int:
        """How many answers there were before."""
        return sum(message["role"] == "assistant" for message in self.messages)

    @property
    def trial(self) -> int:
        """The number of the trial."""
        found = re.search(r"^# Trial (\d+)$", self.told, re.MULTILINE)
        assert found
        return int(found[1])

    @property
    def is_fix(self) -> bool:
        """Whether a crash is to be repaired."""
        return "# Your proposal " in self.told

    def line(self, name: str) -> str:
        """Return the line of the incumbent that sets a constant."""
        script = self.told.partition("# train.py, the best so far")[2]
        found = re.search(rf"^{name} = .*$", script, re.MULTILINE)
        assert found
        return found[0]

    def results(self) -> list[Mapping[str, Any]]:
        """Return what the last tools gave."""
        content: list[Mapping[str, Any]] = self.messages[-1]["content"]
        return content


class AnthropicServer:
    """Answers every request as told, and keeps what it was asked."""

    def __init__(self, server: HTTPServer) -> None:
        self.asked: list[Asked] = []
        self.url = server.url_for("").rstrip("/")
        self._answerer: Answerer = lambda _: failure(400, "nothing was expected")
        server.expect_request("/v1/messages", method="POST").respond_with_handler(self._respond)

    def says(self, *answers: Answer) -> None:
        """Give these answers, one after the other."""
        rest = iter(answers)
        self.says_as(lambda _: next(rest, failure(400, "nothing more was expected")))

    def says_as(self, answerer: Answerer) -> None:
        """Give whatever *answerer* makes of a request."""
        self._answerer = answerer

    def _respond(self, request: Request) -> Response:
        asked = Asked(json.loads(request.data), dict(request.headers))
        self.asked.append(asked)
        answer = self._answerer(asked)
        return answer if isinstance(answer, Response) else as_json(answer)


def as_json(document: object, status: int = 200, **headers: str) -> Response:
    """Return a response; ``_`` in the name of a header stands for a dash."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(json.dumps(document), status, named, content_type="application/json")


def failure(status: int, text: str = "not now", **headers: str) -> Response:
    """Return an error as the API words it."""
    error = {"type": "api_error", "message": text}
    return as_json({"type": "error", "error": error, "request_id": "req_1"}, status, **headers)


def message(*content: object, stop: str = "tool_use", **fields: object) -> dict[str, Any]:
    """Return an answer of the model."""
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-5-5",
        "content": list(content),
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": USAGE,
    } | fields


def text(words: str) -> dict[str, Any]:
    """Return something that the model says."""
    return {"type": "text", "text": words}


def use(tool: str, given: object = None, /, **texts: object) -> dict[str, Any]:
    """Return the use of a tool."""
    number = abs(hash((tool, repr(given), repr(texts))))
    return {"type": "tool_use", "id": f"toolu_{number}", "name": tool, "input": given or texts}


def edit(old: str, new: str) -> dict[str, Any]:
    """Return the use of ``edit``."""
    return use("edit", old=old, new=new)


def submit(description: str = "another rate", hypothesis: str = "it is better") -> dict[str, Any]:
    """Return the use of ``submit``."""
    return use("submit", description=description, hypothesis=hypothesis)


def change(old: str, new: str, description: str = "") -> dict[str, Any]:
    """Return a whole proposal in one answer."""
    return message(edit(old, new), submit(description or f"{old} -> {new}"))


@contextmanager
def raw_server(behave: Callable[[socket.socket], None]) -> Iterator[tuple[str, list[int]]]:
    """Yield the address of a server below HTTP, and a list that has an element for each connection."""
    seen: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                seen.append(len(seen))
                with connection:
                    try:
                        connection.recv(65536)
                        behave(connection)
                    except OSError:
                        continue

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}", seen
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def reset(connection: socket.socket) -> None:
    """End a connection as a router does that has forgotten it."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
