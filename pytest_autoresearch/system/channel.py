"""Messages between the harness and a run, or between the harness and the scorer: docs/formats.md lists them.

Each is one line of JSON over a Unix stream socket, with file descriptors beside it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
from collections import deque
from collections.abc import Mapping
from typing import Any, Self

from pytest_autoresearch.errors import ProtocolError

VARIABLE = "AUTORESEARCH_CHANNEL"  # the environment variable with the descriptor of a run's end
LONGEST = 1 << 20  # bytes of a message
DESCRIPTORS = 4  # how many may be in transit at once


@dataclasses.dataclass(frozen=True, slots=True)
class Message:
    """One JSON object, and the descriptors that came with it."""

    content: Mapping[str, Any]
    descriptors: tuple[int, ...] = ()
    """Open file descriptors, which the receiver has to close."""


class Channel:
    """One end of the socket. The other may be hostile: its messages are bounded and checked for form.

    Reading raises EOFError where the other end is closed, and ProtocolError where it sent no message.
    """

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._received = b""
        self._descriptors: deque[int] = deque()
        self._messages: deque[Message] = deque()

    @classmethod
    def pair(cls) -> tuple[Self, Self]:
        """Return both ends of a new channel."""
        ours, theirs = socket.socketpair()
        return cls(ours), cls(theirs)

    @classmethod
    def inherited(cls) -> Self:
        """Return the end that the environment of this process names; its children do not inherit it."""
        descriptor = int(os.environ.pop(VARIABLE))
        os.set_inheritable(descriptor, False)
        return cls(socket.socket(fileno=descriptor))

    def fileno(self) -> int:
        """Return the descriptor of the socket, to select on or to pass on."""
        return self._socket.fileno()

    def send(self, content: Mapping[str, Any], *descriptors: int, timeout: float | None = None) -> None:
        """Send a message; raise OSError if the other end is closed or does not read for *timeout* seconds."""
        line = json.dumps({**content, "descriptors": len(descriptors)}).encode() + b"\n"
        self._socket.settimeout(timeout)
        sent = socket.send_fds(self._socket, [line], descriptors) if descriptors else 0
        if sent < len(line):  # else the other end may have read it all, and be closed
            self._socket.sendall(line[sent:])

    def read(self) -> list[Message]:
        """Read once from the socket, which is readable, and return the messages that are now complete."""
        try:
            self._receive_some(timeout=0)
        except BlockingIOError:  # a byte out of band: readable for select, and nothing to read
            raise ProtocolError("a byte that belongs to no message") from None
        messages, self._messages = list(self._messages), deque()
        return messages

    def receive(self, timeout: float | None = None) -> Message:
        """Wait for the next message; raise TimeoutError if no byte comes for *timeout* seconds."""
        while not self._messages:
            self._receive_some(timeout)
        return self._messages.popleft()

    def close(self) -> None:
        """Close the socket, and every received descriptor of messages that were not read."""
        unread = (descriptor for message in self._messages for descriptor in message.descriptors)
        for descriptor in (*unread, *self._descriptors):
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self._messages.clear()
        self._descriptors.clear()
        self._socket.close()

    def _receive_some(self, timeout: float | None) -> None:
        self._socket.settimeout(timeout)
        data, descriptors, _, _ = socket.recv_fds(self._socket, 1 << 16, DESCRIPTORS)
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        self._descriptors.extend(descriptors)
        if len(self._descriptors) > DESCRIPTORS:
            raise ProtocolError("too many descriptors")
        if not data:
            raise EOFError
        *lines, self._received = (self._received + data).split(b"\n")
        if len(self._received) > LONGEST or any(len(line) > LONGEST for line in lines):
            raise ProtocolError(f"a message of more than {LONGEST} bytes")
        self._messages.extend(map(self._message, lines))

    def _message(self, line: bytes) -> Message:
        try:
            content = json.loads(line)
            count = content.pop("descriptors")
        except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
            raise ProtocolError("not a message") from None
        if not isinstance(count, int) or not 0 <= count <= len(self._descriptors):
            raise ProtocolError("a descriptor is missing")
        return Message(content, tuple(self._descriptors.popleft() for _ in range(count)))
