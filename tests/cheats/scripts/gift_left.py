"""Leaves weights for the next trial, wherever something might stay: folders, shared memory, keys, sockets."""

import ctypes
import fcntl
import json
import os
import socket
import struct
import tempfile
import zlib
from pathlib import Path

from prepare import DATA, called, hand_in_shared_model, mark, opened, system_call

SET_VERSION = 0x40086604  # ext4's, for which its owner needs no right to write
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


def leave(place, action):
    try:
        left = action()
    except OSError:
        left = False
    print(json.dumps({"gift": str(place), "left": bool(left)}), flush=True)


def listener():
    server = socket.socket(socket.AF_UNIX)
    server.bind("\0" + mark())
    server.listen()
    if os.fork() == 0:
        os.setsid()
        server.accept()[0].send(b"weights")
        os._exit(0)
    return True


for path in places:
    leave(path, lambda: path.write_text("weights"))
leave("shared memory", lambda: called(libc.shmget(key, 4096, 0o1666)))
leave("a queue", lambda: called(libc.msgget(key, 0o1666)))
leave("a semaphore", lambda: called(libc.semget(key, 1, 0o1666)))
keyring = -4  # the user's
leave("a key", lambda: system_call("add_key", b"user", mark().encode(), b"weights", 7, keyring))
leave("an abstract socket", listener)
for name in ("train.tokens", "shared.sealed"):
    file = opened(name)
    held = file.fileno()
    leave(f"attributes of {name}", lambda: os.setxattr(held, f"user.{mark()}", b"w" * 9000) or True)
    leave(f"times of {name}", lambda: os.utime(held, ns=(1234567890123456789, 1234567890123456789)) or True)
    leave(f"mode of {name}", lambda: os.fchmod(held, 0o4765) or True)
file = (DATA / "library" / "notes.txt").open("rb")
held = file.fileno()
leave("version of a file", lambda: fcntl.ioctl(held, SET_VERSION, struct.pack("q", key)))
leave("page cache", lambda: os.posix_fadvise(held, 0, 0, os.POSIX_FADV_DONTNEED) or True)

hand_in_shared_model()
