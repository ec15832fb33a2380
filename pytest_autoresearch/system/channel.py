"""The few messages between a run, or the scorer, and its harness.

One JSON object a line over a Unix stream socket, file descriptors beside it. A run says, in this order::

    {"open": "tokenizer.tiktoken"}   what it wants to read; the first file of training data starts the clock
    {"clock": true}                  to look at the clock that its budget is counted on
    {"trained": "sha256"}            the digest of its model, graph and weights; the clock stops
    {"model": true}                  the sealed model, as a descriptor
    {"unsealable": "reason"}         or why there is none

and is answered with a descriptor, with ``{"score": 1.234}`` or with ``{"refused": "reason"}``. With the
descriptor of a clock comes ``{"at": 1.5}``, see clock.py; with that of training data ``{"charged": 0.5}``:
seconds of its budget that the start-up has used.
"""

from __future__ import annotations

import array
import contextlib
import dataclasses
import json
import os
import socket
from collections import deque
from collections.abc import Mapping
from typing import Any, Self

from pytest_autoresearch.errors import ProtocolError

VARIABLE = "AUTORESEARCH_WIRE"  # the environment's name for the descriptor of a run's end
LONGEST = 1 << 20  # bytes of a message
DESCRIPTORS = 4  # that may be under way at once


@dataclasses.dataclass(frozen=True, slots=True)
class Message:
    """One JSON object, and what came with it."""

    content: Mapping[str, Any]
    descriptors: tuple[int, ...] = ()
    """Open file descriptors, the receiver's to close."""


class Channel:
    """One end of the socket. The other may be hostile: what it sends is bounded and checked for form."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._received = b""
        self._descriptors: deque[int] = deque()
        self._messages: deque[Message] = deque()

    @classmethod
    def pair(cls) -> tuple[Self, Self]:
        """Return both ends of a new wire."""
        ours, theirs = socket.socketpair()
        return cls(ours), cls(theirs)

    @classmethod
    def inherited(cls) -> Self:
        """Return the end that the environment of this process names; nobody inherits it any further."""
        descriptor = int(os.environ.pop(VARIABLE))
        os.set_inheritable(descriptor, False)
        return cls(socket.socket(fileno=descriptor))

    def fileno(self) -> int:
        """Return the descriptor of the socket, to select on or to hand on."""
        return self._socket.fileno()

    def send(self, content: Mapping[str, Any], *descriptors: int, timeout: float | None = None) -> None:
        """Send a message, with open descriptors beside it.

        Raises:
            OSError: the other end is gone, or has not read for *timeout* seconds.
        """
        line = json.dumps({**content, "descriptors": len(descriptors)}).encode() + b"\n"
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        self._socket.settimeout(timeout)
        try:
            sent = self._socket.sendmsg([line], rights if descriptors else [])
            if sent < len(line):  # the other end may have read it all, and be gone
                self._socket.sendall(line[sent:])
        finally:
            self._socket.settimeout(None)

    def read(self) -> list[Message]:
        """Return the messages that are complete once the socket, which is readable, has been read from.

        Raises:
            EOFError: the other end is closed.
            ProtocolError: what arrives is no message.
        """
        try:
            self._receive_some(socket.MSG_DONTWAIT)
        except BlockingIOError:  # a byte out of band: readable for select, and nothing to read
            raise ProtocolError("a byte that belongs to no message") from None
        messages, self._messages = list(self._messages), deque()
        return messages

    def receive(self, timeout: float | None = None) -> Message:
        """Wait for the next message.

        Raises:
            TimeoutError: *timeout* seconds went by without a byte.
            EOFError: the other end is closed.
            ProtocolError: what arrives is no message.
        """
        self._socket.settimeout(timeout)
        try:
            while not self._messages:
                self._receive_some()
        finally:
            self._socket.settimeout(None)
        return self._messages.popleft()

    def close(self) -> None:
        """Close the socket, and every descriptor that nobody has taken."""
        while self._messages:
            self._descriptors.extend(self._messages.popleft().descriptors)
        while self._descriptors:
            with contextlib.suppress(OSError):
                os.close(self._descriptors.popleft())
        self._socket.close()

    def _receive_some(self, flags: int = 0) -> None:
        room = socket.CMSG_SPACE(DESCRIPTORS * array.array("i").itemsize)
        data, ancillary, _, _ = self._socket.recvmsg(1 << 16, room, flags)
        for level, kind, payload in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                self._take(payload)
        if not data:
            raise EOFError
        *lines, self._received = (self._received + data).split(b"\n")
        if len(self._received) > LONGEST or any(len(line) > LONGEST for line in lines):
            raise ProtocolError(f"a message of more than {LONGEST} bytes")
        self._messages.extend(map(self._message, lines))

    def _take(self, payload: bytes) -> None:
        descriptors = array.array("i")
        descriptors.frombytes(payload[: len(payload) - len(payload) % descriptors.itemsize])
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        self._descriptors.extend(descriptors)
        if len(self._descriptors) > DESCRIPTORS:
            raise ProtocolError("too many descriptors")

    def _message(self, line: bytes) -> Message:
        try:
            content = json.loads(line)
            count = content.pop("descriptors")
        except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
            raise ProtocolError("not a message") from None
        if not isinstance(count, int) or not 0 <= count <= len(self._descriptors):
            raise ProtocolError("a descriptor is missing")
        return Message(content, tuple(self._descriptors.popleft() for _ in range(count)))
