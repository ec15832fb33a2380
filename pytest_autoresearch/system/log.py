"""The output of a run on the disk: its beginning and its end, without the middle of a long output."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

from pytest_autoresearch.system.files import writing

HEAD, TAIL = 1 << 20, 1 << 20  # bytes that are kept of one run
EXCERPT = 1 << 17  # bytes that are stored for good of all runs of a trial


class BoundedLog:
    """A file to which the output of a run is appended; complete at any time, even if pytest is killed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            self._file = path.open("r+b")
            self._gap = self._file.seek(0, os.SEEK_END) + HEAD  # where the middle would be
        self._mark = b""  # the line in its place
        self._dropped = 0  # bytes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with writing(self._path), self._file:
            if self._excess() > 0:
                self._shorten()

    def write(self, chunk: bytes) -> None:
        """Append output."""
        with writing(self._path):
            self._file.write(chunk)
            if self._excess() > TAIL:  # not for every chunk, because each time the end is written again
                self._shorten()
            self._file.flush()

    def _excess(self) -> int:
        """Return how many bytes there are besides the beginning and the end that are kept."""
        return self._file.tell() - self._gap - len(self._mark) - TAIL

    def _shorten(self) -> None:
        """Keep the beginning and the end. At each moment the file ends with the latest output."""
        self._dropped += self._excess()
        self._mark = left_out(self._dropped)
        self._file.seek(-TAIL, os.SEEK_END)
        end = self._file.read()
        self._file.seek(self._gap)
        self._file.write(self._mark + end)
        self._file.flush()
        self._file.truncate()


def excerpt(path: Path) -> bytes:
    """Return a log, or the two ends of one longer than :data:`EXCERPT` bytes; nothing if there is none."""
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        if size <= EXCERPT:
            return file.read()
        head = file.read(EXCERPT // 4)
        file.seek(len(head) - EXCERPT, os.SEEK_END)
        return head + left_out(size - EXCERPT) + file.read()


def left_out(count: int) -> bytes:
    """Return the line in the place of *count* bytes."""
    return f"\n[... {count:,} bytes left out ...]\n".encode()
