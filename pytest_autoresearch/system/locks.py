"""One writer: who works on a campaign holds its lock, and the kernel lets go of it when they die."""

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
    """A file that at most one living process holds, on this machine or any that shares the file system.

    It is flock(2)'s: nobody has to find out whether a holder is still alive, for the lock of a process ends
    with it, however it ends. What the file says is for people, and for telling a holder that died.
    """

    def __init__(self, path: Path) -> None:
        """Take the lock at *path*.

        Raises:
            Held: somebody else has it.
            OSError: there can be no such file.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        # Never unlinked: whoever waits for the old file would share the lock with whoever makes a new one.
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.died = self._read()
            """Who held it and did not let go: died, or was killed. None if there is nobody."""
            self._write(_me())
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
        """Let go of it, and leave word that this was meant; it may be called again."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            with contextlib.suppress(OSError):  # on a disk that has failed meanwhile
                os.ftruncate(descriptor, 0)
            os.close(descriptor)

    def _read(self) -> str | None:
        text = os.pread(self._descriptor, 200, 0).decode(errors="replace")
        # A line that is not whole was being written.
        return text.removesuffix("\n") if text.endswith("\n") else None

    def _write(self, text: str) -> None:
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{text}\n".encode(), 0)


def _me() -> str:
    since = dt.datetime.now().astimezone().isoformat(" ", "seconds")
    return f"process {os.getpid()} on {socket.gethostname()}, since {since}"
