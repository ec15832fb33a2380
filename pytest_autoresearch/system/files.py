"""Files: one error for every disk that cannot be written, and safe reading of files from strangers."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pytest_autoresearch.errors import DISK_FAILS, DISK_FULL, DISK_READ_ONLY, FileRefused, StorageError

ROOM = 16 << 20  # bytes; for a run, a file system with less space counts as full
KINDS = {
    errno.ENOSPC: DISK_FULL,
    errno.EDQUOT: DISK_FULL,
    errno.EROFS: DISK_READ_ONLY,
    errno.EACCES: DISK_READ_ONLY,
    errno.EPERM: DISK_READ_ONLY,
    errno.EIO: DISK_FAILS,
}
# The messages of git, which do not always give the system's reason.
NO_SPACE = re.compile(r"No space left on device|Disk quota exceeded|Out of diskspace")
NO_PERMISSION = re.compile(r"Read-only file system|Permission denied|insufficient permission|not permitted")
WRITE_FAILURE = re.compile(
    r"Input/output error|write error|unable to create directory"
    r"|(could not|couldn't|unable to|failed to) (write|append|fsync|set)",
    re.IGNORECASE,
)


@contextlib.contextmanager
def writing(path: Path | None = None) -> Iterator[None]:
    """Raise :class:`StorageError` for an OSError of the block.

    *path* is what is written, if the error does not say; None is the folder for temporary files.
    """
    try:
        yield
    except OSError as error:
        where = error.filename or path or tempfile.tempdir or "no folder for temporary files"
        reason = error.strerror or str(error)
        raise StorageError(KINDS.get(error.errno or 0, DISK_FAILS), f"{reason}: {str(where)!r}") from error


def storage_error(output: str, program: str, folder: Path) -> StorageError | None:
    """Return the error for the *output* of a *program* that wrote in *folder*; None if no write failed."""
    patterns = {NO_SPACE: DISK_FULL, NO_PERMISSION: DISK_READ_ONLY, WRITE_FAILURE: DISK_FAILS}
    for pattern, kind in patterns.items():
        for line in filter(pattern.search, output.splitlines()):
            cause = _cause(output, folder) if kind == DISK_FAILS else kind
            return StorageError(cause, f"{program} in {str(folder)!r}: {line.strip()}")
    return None


def _cause(output: str, folder: Path) -> str:
    if os.strerror(errno.EIO) in output:
        return DISK_FAILS
    if is_full(folder, 1 << 16):
        return DISK_FULL
    return DISK_FAILS if os.access(folder, os.W_OK) else DISK_READ_ONLY


def is_full(path: Path, room: int = ROOM) -> bool:
    """Return whether the file system of *path* has less than *room* bytes left."""
    return shutil.disk_usage(path).free < room


def read_bounded(
    file: int | str | Path, largest: int, *, chunk: int = 1 << 20, sole_name: bool = False
) -> Iterator[bytes]:
    """Yield the content of a regular file that a stranger may have made, and may still be writing.

    The size is taken once: a file that grows is read up to that size. A path is opened without following a
    symbolic link in its last part, and without waiting for the writer of a pipe.

    A descriptor stays open. With *sole_name* a file that has other names (hard links) is refused too.

    Raises:
        FileRefused: it is no regular file, has more than *largest* bytes or cannot be read. The message
            continues a sentence that begins with the name of the file.
    """
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = file if isinstance(file, int) else os.open(file, flags)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise FileRefused("is no regular file")
            if sole_name and status.st_nlink != 1:
                raise FileRefused("has other names: no hard link is read")
            if status.st_size > largest:
                raise FileRefused(f"has {status.st_size:,} bytes, at most {largest:,} are allowed")
            position = 0
            while data := os.pread(descriptor, min(chunk, status.st_size - position), position):
                yield data
                position += len(data)
        finally:
            if not isinstance(file, int):
                os.close(descriptor)
    except OSError as error:
        raise FileRefused(f"cannot be read: {error.strerror}") from error
