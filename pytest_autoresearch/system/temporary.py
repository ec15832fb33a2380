"""Temporary folders, none of which outlives the process that made it by more than one session.

All of them lie in one folder of this process's in TMPDIR. Whoever is killed leaves it; its lock is free then,
and the next session knows by that to remove it.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pytest_autoresearch.errors import LockHeld
from pytest_autoresearch.system.files import writing
from pytest_autoresearch.system.locks import Lock

PREFIX = "pytest-autoresearch-"
OURS = re.compile(rf"{PREFIX}(\d+)-[a-z0-9_]{{8}}")  # as mkdtemp names them
OWNER = "owner"  # the lock's file


@contextlib.contextmanager
def folder(name: str) -> Iterator[Path]:
    """Yield a new folder, and remove it afterwards; *name* is what its own begins with."""
    with writing():
        path = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=_own())).resolve()
    try:
        yield path
    finally:
        remove(path)


def sweep() -> int:
    """Remove what killed processes of this user have left in TMPDIR, and return how many there were."""
    found = 0
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        if path != _own() and _is_left(path):
            for inner in [inner for inner in path.iterdir() if inner.name != OWNER]:
                remove(inner)  # the lock's file last: without it nobody knows what is left
            remove(path)
            found += not path.exists()
    return found


def remove(path: Path) -> None:
    """Remove a folder, whatever a run has made of it: too deep for Python, or closed to its owner."""
    with contextlib.suppress(OSError, RecursionError):
        shutil.rmtree(path)
    for command in (["rm", "-rf"], ["chmod", "-R", "u+rwx"], ["rm", "-rf"]):
        if not path.exists():
            return
        subprocess.run([*command, "--", path], stderr=subprocess.DEVNULL, check=False)


@functools.cache
def _own() -> Path:
    path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
    lock = Lock(path / OWNER)
    owner = os.getpid()

    def clean() -> None:
        if os.getpid() == owner:  # and no fork of it
            remove(path)
            lock.release()

    atexit.register(clean)
    return path


def _is_left(path: Path) -> bool:
    """Tell whether the process that made *path* is dead."""
    import psutil

    try:
        status = path.lstat()
        ours = OURS.fullmatch(path.name)
        if ours is None or status.st_uid != os.getuid() or not path.is_dir() or path.is_symlink():
            return False
        owner = path / OWNER
        if not owner.exists() or not owner.stat().st_size:  # the lock is about to be taken, or never will be
            return {owner}.issuperset(path.iterdir()) and not psutil.pid_exists(int(ours[1]))
        Lock(owner).release()
    except (LockHeld, OSError):
        return False
    return True
