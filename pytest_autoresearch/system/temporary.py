"""Temporary folders. Those of a killed process are removed by the next session.

Each process has one folder in TMPDIR for all of them, with a lock in it. If that lock is free, the process is
dead.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from pytest_autoresearch.system.files import writing
from pytest_autoresearch.system.locks import Lock

PREFIX = "pytest-autoresearch-"
OURS = re.compile(rf"{PREFIX}(\d+)-[a-z0-9_]{{8}}")  # as mkdtemp names them
OWNER = "owner"  # the file of the lock


@contextlib.contextmanager
def folder(name: str, files: Mapping[str, str] | None = None) -> Iterator[Path]:
    """Yield a new folder whose name begins with *name*, and remove it afterwards.

    It holds *files*, path and text of each; a path that leaves the folder is a ValueError.
    """
    files = files or {}
    for inner in map(PurePosixPath, files):
        if not inner.name or inner.is_absolute() or ".." in inner.parts:
            raise ValueError(f"{str(inner)!r} is no path inside of a run's folder")
    with writing():
        path = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=_own())).resolve()
    try:
        with writing(path):
            for file, text in files.items():
                (path / file).parent.mkdir(parents=True, exist_ok=True)
                (path / file).write_bytes(text.encode())
        yield path
    finally:
        remove(path)


def sweep() -> int:
    """Remove the folders of killed processes of this user from TMPDIR, and return how many there were."""
    found = 0
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        if path != _own() and _is_abandoned(path):
            for inner in [inner for inner in path.iterdir() if inner.name != OWNER]:
                remove(inner)  # the lock last: without it the rest would not be recognised
            remove(path)
            found += not path.exists()
    return found


def remove(path: Path) -> None:
    """Remove a folder, even if a run has made it too deep for Python or taken its owner's rights."""
    with contextlib.suppress(OSError, RecursionError):
        shutil.rmtree(path)
    for command in (["rm", "-rf"], ["chmod", "-R", "u+rwx"], ["rm", "-rf"]):
        if path.exists():
            subprocess.run([*command, "--", path], stderr=subprocess.DEVNULL, check=False)


@functools.cache
def _own() -> Path:
    path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
    lock = Lock(path / OWNER)
    owner = os.getpid()

    def clean() -> None:
        if os.getpid() == owner:  # not in a fork
            remove(path)
            lock.release()

    atexit.register(clean)
    return path


def _is_abandoned(path: Path) -> bool:
    """Return whether *path* is the folder of a dead process."""
    import psutil

    try:
        status = path.lstat()
        ours = OURS.fullmatch(path.name)
        if ours is None or status.st_uid != os.getuid() or not path.is_dir() or path.is_symlink():
            return False
        owner = path / OWNER
        if not owner.exists() or not owner.stat().st_size:  # not locked yet, or never
            return {owner}.issuperset(path.iterdir()) and not psutil.pid_exists(int(ours[1]))
        # Not released as a Lock is: without its text the folder would not be known if this process is killed.
        with owner.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
