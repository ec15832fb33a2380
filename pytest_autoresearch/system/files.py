"""The disk: full, failing or read-only; what the harness writes then fails in one line, whoever writes it."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pytest_autoresearch.errors import DISK_FAILS, DISK_FULL, DISK_READ_ONLY, StorageError

ROOM = 16 << 20  # bytes; a file system that has less left is full, for what a run writes
KINDS = {
    errno.ENOSPC: DISK_FULL,
    errno.EDQUOT: DISK_FULL,
    errno.EROFS: DISK_READ_ONLY,
    errno.EACCES: DISK_READ_ONLY,
    errno.EPERM: DISK_READ_ONLY,
    errno.EIO: DISK_FAILS,
}
# What git says of them, which does not always give the system's reason.
NO_ROOM = re.compile(r"No space left on device|Disk quota exceeded|Out of diskspace")
NO_LEAVE = re.compile(r"Read-only file system|Permission denied|insufficient permission|not permitted")
NO_LUCK = re.compile(
    r"Input/output error|write error|unable to create directory"
    r"|(could not|couldn't|unable to|failed to) (write|append|fsync|set)",
    re.IGNORECASE,
)


@contextlib.contextmanager
def writing(place: Path | None = None) -> Iterator[None]:
    """Raise :class:`StorageError` where the block meets an OSError.

    Args:
        place: what is written, where the error does not tell; None is the folder for temporary files.
    """
    try:
        yield
    except OSError as error:
        where = error.filename or place or tempfile.tempdir or "no folder for temporary files"
        reason = error.strerror or str(error)
        raise StorageError(KINDS.get(error.errno or 0, DISK_FAILS), f"{reason}: {str(where)!r}") from error


def storage_error(said: str, by: str, place: Path) -> StorageError | None:
    """Return what to raise for what git has *said*; None if that has nothing to do with the disk.

    Args:
        said: all of it.
        by: whom to name.
        place: where it has been writing.
    """
    for form, kind in ((NO_ROOM, DISK_FULL), (NO_LEAVE, DISK_READ_ONLY), (NO_LUCK, DISK_FAILS)):
        for line in said.splitlines():
            if form.search(line):
                found = _cause(said, place) if kind == DISK_FAILS else kind
                return StorageError(found, f"{by} in {str(place)!r}: {line.strip()}")
    return None


def _cause(said: str, place: Path) -> str:
    """Return what keeps git from writing, for it does not always give the system's reason."""
    if os.strerror(errno.EIO) in said:
        return DISK_FAILS
    if is_full(place, 1 << 16):
        return DISK_FULL
    return DISK_FAILS if os.access(place, os.W_OK) else DISK_READ_ONLY


def is_full(place: Path, room: int = ROOM) -> bool:
    """Tell whether less than *room* bytes are left where *place* is."""
    return shutil.disk_usage(place).free < room
