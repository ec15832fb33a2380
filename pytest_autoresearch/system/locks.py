"""A lock that one process holds at a time. The kernel releases it when its holder dies."""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import os
import socket
from pathlib import Path
from typing import Self

from pytest_autoresearch.errors import LockHeld


class Lock:
    """A file with a flock(2) lock, among all machines that share the file system.

    The text in the file is for people, and shows whether the last holder died without releasing it.
    """

    def __init__(self, path: Path) -> None:
        """Take the lock at *path*; raise LockHeld if another process has it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        # Never unlinked: a process with the old file and one with a new file would both have the lock.
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.died = self._read()
            """The holder that died without releasing it, or None."""
            since = dt.datetime.now().astimezone().isoformat(" ", "seconds")
            self._write(f"process {os.getpid()} on {socket.gethostname()}, since {since}\n")
        except BlockingIOError:
            holder = self._read()
            os.close(self._descriptor)
            raise LockHeld(holder or "another process") from None
        except BaseException:
            os.close(self._descriptor)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Release it, and record that this was intended; may be called again."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            with contextlib.suppress(OSError):  # the disk may have failed meanwhile
                os.ftruncate(descriptor, 0)
            os.close(descriptor)

    def _read(self) -> str | None:
        line, end, _ = os.pread(self._descriptor, 200, 0).decode(errors="replace").rpartition("\n")
        return line if end else None  # a line without its end was being written

    def _write(self, line: str) -> None:
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, line.encode(), 0)
