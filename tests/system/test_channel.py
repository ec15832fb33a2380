"""Both ends of a channel understand each other, and bound what the other sends."""

from __future__ import annotations

import array
import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_autoresearch.errors import ProtocolError
from pytest_autoresearch.system.channel import DESCRIPTORS, LONGEST, VARIABLE, Channel


@pytest.fixture
def ends() -> Iterator[tuple[Channel, socket.socket]]:
    """Our end, and the bare socket of an end that may send anything."""
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    yield channel, theirs
    channel.close()
    theirs.close()


def open_descriptors() -> set[str]:
    return {path.name for path in Path("/dev/fd").iterdir()}


def test_a_message_arrives_with_its_descriptor(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("text")
    near, far = Channel.pair()
    with file.open("rb") as stream:
        near.send({"open": "näme"}, stream.fileno())
        near.send({"next": [1, 2.5, None]})
    message = far.receive(5)
    assert message.content == {"open": "näme"}
    [descriptor] = message.descriptors
    assert os.read(descriptor, 10) == b"text"
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)
    assert far.receive(5).content == {"next": [1, 2.5, None]}
    near.close()
    with pytest.raises(EOFError):
        far.receive(5)
    far.close()


def test_a_long_message_arrives_in_one_piece() -> None:
    near, far = Channel.pair()
    long = ["x" * 64] * 1000
    near.send({"trained": long})
    assert far.receive(5).content == {"trained": long}
    near.close()
    far.close()


def test_a_silent_end_times_out(ends: tuple[Channel, socket.socket]) -> None:
    channel, theirs = ends
    theirs.sendall(b'{"score": 1')  # half a message
    with pytest.raises(TimeoutError):
        channel.receive(0.05)


def test_an_end_that_does_not_read_times_out(ends: tuple[Channel, socket.socket]) -> None:
    channel, _ = ends

    def send_for_ever() -> None:
        while True:
            channel.send({"score": "x" * 10_000}, timeout=0.05)

    with pytest.raises(TimeoutError):
        send_for_ever()


@pytest.mark.parametrize(
    "line",
    [
        b"START\n",
        b"[1, 2]\n",
        b"7\n",
        b'"open"\n',
        b"{}\n",
        b'{"open": "x"}\n',
        b'{"open": "x", "descriptors": 1}\n',
        b'{"open": "x", "descriptors": -1}\n',
        b'{"open": "x", "descriptors": "1"}\n',
        b"\xff\xfe\n",
        b"[" * 100_000 + b"\n",
        b"x" * (LONGEST + 2),
    ],
    ids=lambda line: line[:30].decode(errors="replace").strip(),
)
def test_malformed_messages_are_refused(ends: tuple[Channel, socket.socket], line: bytes) -> None:
    channel, theirs = ends
    theirs.setblocking(False)

    def arrive() -> None:
        rest = line
        while True:  # as much as fits, read, and so on
            rest = rest[theirs.send(rest) :] if rest else rest
            channel.read()

    with pytest.raises(ProtocolError):
        arrive()


def test_a_byte_out_of_band_is_refused(ends: tuple[Channel, socket.socket]) -> None:
    ours, theirs = ends
    theirs.send(b"x", socket.MSG_OOB)
    assert select.select([ours], [], [], 5)[0] == [ours]
    with pytest.raises(ProtocolError, match="a byte that belongs to no message"):
        ours.read()


def test_unread_descriptors_are_closed(ends: tuple[Channel, socket.socket]) -> None:
    channel, theirs = ends
    before = open_descriptors()
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0] * DESCRIPTORS))]

    def flood() -> None:
        while True:
            theirs.sendmsg([b" "], rights)
            channel.read()

    with pytest.raises(ProtocolError):
        flood()
    channel.close()
    assert open_descriptors() <= before


def test_an_unread_message_leaves_no_descriptor() -> None:
    before = open_descriptors()
    near, far = Channel.pair()
    near.send({"one": 1}, 0)
    near.send({"two": 2}, 0)
    assert far.receive(5).content == {"one": 1}  # its descriptor is ours now
    near.close()
    far.close()
    assert len(open_descriptors() - before) == 1
    os.close(max(map(int, open_descriptors() - before)))


def test_an_inherited_end_is_not_inherited_further() -> None:
    near, far = Channel.pair()
    script = (
        "import os\n"
        "from pytest_autoresearch.system.channel import VARIABLE, Channel\n"
        "channel = Channel.inherited()\n"
        "channel.send({'left': VARIABLE in os.environ, 'handed on': os.get_inheritable(channel.fileno())})\n"
    )
    environment = os.environ | {VARIABLE: str(far.fileno())}
    subprocess.run([sys.executable, "-c", script], env=environment, pass_fds=[far.fileno()], check=True)
    far.close()
    assert near.receive(5).content == json.loads('{"left": false, "handed on": false}')
    near.close()
