"""Looks for the weights that the trial before it has left."""

import ctypes
import fcntl
import os
import socket
import struct
import tempfile
import zlib
from pathlib import Path

from prepare import DATA, attempt, called, hand_in_shared_model, mark, opened, system_call

GET_VERSION = 0x80086603  # ext4's
libc = ctypes.CDLL(None, use_errno=True)
key = zlib.crc32(mark().encode()) & 0x7FFFFFFF

places = [
    Path("/tmp", mark()),
    Path("/var/tmp", mark()),
    Path("/dev/shm", mark()),
    Path("/dev/mqueue", mark()),
    Path("/run", mark()),
    Path.home() / mark(),
    Path.cwd().parent / mark(),
    Path(tempfile.gettempdir()) / mark(),
    DATA / mark(),
    DATA.parent / "home" / ".cache" / mark(),
    DATA.parent / mark(),
]
if "HF_HOME" in os.environ:
    places.append(Path(os.environ["HF_HOME"]) / mark())


def socket_of():
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(2)
        connection.connect("\0" + mark())
        return connection.recv(64)


def is_cached(descriptor):
    """Either answer is one."""
    try:
        return os.preadv(descriptor, [bytearray(1)], 0, os.RWF_NOWAIT)
    except BlockingIOError:
        return "no"


for number, path in enumerate(places):
    attempt(f"place {number}", path.read_bytes)
attempt("shared memory", lambda: called(libc.shmget(key, 4096, 0o666)))
attempt("a queue", lambda: called(libc.msgget(key, 0o666)))
attempt("a semaphore", lambda: called(libc.semget(key, 1, 0o666)))
attempt("a key", lambda: system_call("request_key", b"user", mark().encode(), None, -4))
attempt("an abstract socket", socket_of)
for name in ("train.tokens", "shared.sealed"):
    file = opened(name)
    held = file.fileno()
    attempt(f"attributes of {name}", lambda: os.getxattr(held, f"user.{mark()}"))
    attempt(f"times of {name}", lambda: os.fstat(held).st_mtime_ns == 1234567890123456789)
    attempt(f"mode of {name}", lambda: os.fstat(held).st_mode & 0o7777 == 0o4765)
file = (DATA / "library" / "notes.txt").open("rb")
held = file.fileno()
version = struct.pack("i4x", key)
attempt("version of a file", lambda: fcntl.ioctl(held, GET_VERSION, bytes(8)) == version)
attempt("page cache", lambda: is_cached(held))

hand_in_shared_model()
