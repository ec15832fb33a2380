"""What a run prints, on the disk: its beginning and its end, however much there was in between."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Self

from pytest_autoresearch.system.files import writing

HEAD, TAIL = 1 << 20, 1 << 20  # bytes of one run that are kept
EXCERPT = 1 << 17  # bytes of a trial's runs together that are worth keeping for good


class BoundedLog:
    """A file to which a run's output is appended, and is there at once: whoever writes it may be killed.

    Of a long output the middle is left out, as it comes.

    Raises:
        StorageError: it cannot be written, now or later.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            self._file = path.open("r+b")
            self._gap = self._file.seek(0, os.SEEK_END) + HEAD  # where the middle would be
        self._mark = b""  # stands there for what is left out
        self._dropped = 0  # bytes

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def write(self, chunk: bytes) -> None:
        """Take more output in."""
        with writing(self._path):
            self._file.write(chunk)
            if self._excess() > TAIL:  # not for every chunk: each time the end is written anew
                self._shorten()
            self._file.flush()

    def close(self) -> None:
        """Leave out what there is too much of."""
        with writing(self._path), self._file:
            if self._excess() > 0:
                self._shorten()

    def _excess(self) -> int:
        """Return how many bytes there are beyond the beginning and the end that are kept."""
        return self._file.tell() - self._gap - len(self._mark) - TAIL

    def _shorten(self) -> None:
        """Keep the beginning and the end. The file ends with the latest output at every moment of this."""
        self._dropped += self._excess()
        self._mark = left_out(self._dropped)
        self._file.seek(-TAIL, os.SEEK_END)
        end = self._file.read()
        self._file.seek(self._gap)
        self._file.write(self._mark + end)
        self._file.flush()
        self._file.truncate()


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
