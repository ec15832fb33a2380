"""The compilers' caches on the disk: every run has its own, and may begin with a copy of the baseline's.

Compiling takes a good part of a run's start-up, and most trials change little of what is compiled.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
from pathlib import Path
from typing import Literal

from pytest_autoresearch.errors import StorageError
from pytest_autoresearch.system import temporary

FOLDER = ".compiled"  # in the run's folder
OF_COMPILERS = {"TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}
LARGEST = 2 << 30  # bytes
GROUPS = "__grp__*"  # files in which Triton lists others by their absolute paths

CacheUse = Literal["copy", "empty", "fill"]
"""A run begins with a copy of what was kept, or with nothing; with ``fill``, what it compiles is kept."""


def variables(folder: Path) -> dict[str, str]:
    """Return the variables that tell compilers where a run in *folder* has its caches."""
    return {variable: str(folder / FOLDER / name) for variable, name in OF_COMPILERS.items()}


class CompilerCache:
    """The caches of the first script of a campaign. Every later run gets a copy.

    A run executes what it finds in its caches, so a trial could leave there what it has learned. Therefore
    only the script that the campaign began with fills them, with what it compiled before it was given any
    training data. Where scores are not sealed nobody knows when that is, and they are copied at its end. No
    trial fills them, kept or not, and none writes where another one reads. Without a sandbox a trial can
    write to these too, as to everything.

    The baseline's runs begin without: their start-up is what every trial may take, and a trial that changes
    what is compiled has to compile it.
    """

    def __init__(self) -> None:
        self._held = contextlib.ExitStack()
        self._kept: Path | None = None
        self._made_in = ""
        self._lock = threading.Lock()

    def keep(self, folder: Path) -> None:
        """Keep a copy of the caches of a run in *folder*, unless there is one already.

        If they are too large or cannot be copied, nothing is kept, and later runs compile for themselves.
        """
        source = folder / FOLDER
        with self._lock, contextlib.suppress(OSError, RecursionError, StorageError):
            if self._kept is not None or not source.is_dir():
                return
            size = sum(path.lstat().st_size for path in source.rglob("*") if not path.is_dir())
            room = shutil.disk_usage(source).free // 4  # each run's copy needs some as well
            if not 0 < size <= min(LARGEST, room):
                return
            with contextlib.ExitStack() as opened:
                target = opened.enter_context(temporary.folder("compiled")) / FOLDER
                shutil.copytree(source, target, symlinks=True)
                self._made_in, self._kept = str(source), target
                self._held = opened.pop_all()

    def copy_to(self, folder: Path) -> None:
        """Give a run in *folder* a copy of what was kept, if there is any and the disk has room."""
        if self._kept is None:
            return
        target = folder / FOLDER
        try:
            shutil.copytree(self._kept, target, symlinks=True)
            for path in target.rglob(GROUPS):
                path.write_text(path.read_text().replace(self._made_in, str(target)))
        except (OSError, ValueError):
            temporary.remove(target)

    def close(self) -> None:
        """Remove what was kept."""
        self._held.close()
        self._kept = None
