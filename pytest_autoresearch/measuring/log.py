"""What a run prints, on the disk: its beginning and its end, however much there was in between."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Self

from pytest_autoresearch.disk import writing

HEAD, TAIL = 1 << 20, 1 << 20  # bytes of one run that are kept
EXCERPT = 1 << 17  # bytes of a trial's runs together that are worth keeping for good


class Log:
    """A file to which a run's output is appended; the end of a long one is written when it is closed.

    Raises:
        disk.Unwritable: it cannot be written, now or later.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab")
        self._room = HEAD
        self._tail: deque[bytes] = deque()
        self._held = self._dropped = 0  # bytes

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def write(self, chunk: bytes) -> None:
        """Take more output in."""
        with writing(self._path):
            self._file.write(chunk[: self._room])
        rest, self._room = chunk[self._room :], max(self._room - len(chunk), 0)
        if rest:
            self._tail.append(rest)
            self._held += len(rest)
        while self._tail and self._held - len(self._tail[0]) >= TAIL:
            self._drop(len(self._tail[0]))

    def close(self) -> None:
        """Write the end."""
        with writing(self._path), self._file:
            if self._held > TAIL:
                self._drop(self._held - TAIL)
            if self._dropped:
                self._file.write(left_out(self._dropped))
            self._file.writelines(self._tail)

    def _drop(self, count: int) -> None:
        """Forget the first *count* bytes that are held."""
        first = self._tail.popleft()
        if len(first) > count:
            self._tail.appendleft(first[count:])
        self._held -= count
        self._dropped += count


def excerpt(path: Path) -> bytes:
    """Return a log, of one longer than :data:`EXCERPT` bytes its ends; nothing if there is none."""
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        if size <= EXCERPT:
            return file.read()
        head = file.read(EXCERPT // 4)
        tail = EXCERPT - len(head)
        file.seek(size - tail)
        return head + left_out(size - EXCERPT) + file.read()


def left_out(count: int) -> bytes:
    """Return the line that stands for *count* bytes."""
    return f"\n[... {count:,} bytes left out ...]\n".encode()
