"""What compilers keep on the disk: every run has caches of its own, and may begin with those of the start.

Compiling takes a good part of a run's start-up, and most trials change little of what is compiled.
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from pytest_autoresearch.errors import StorageError
from pytest_autoresearch.system import temporary

FOLDER = ".compiled"  # in a run's own
OF_COMPILERS = {"TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}
LARGEST = 2 << 30  # bytes
GROUPS = "__grp__*"  # files in which Triton lists others by their absolute paths


def places(folder: Path) -> dict[str, str]:
    """Return the variables that tell compilers where a run in *folder* has its caches."""
    return {variable: str(folder / FOLDER / name) for variable, name in OF_COMPILERS.items()}


class CompilerCache:
    """The caches of a campaign's start. Every later run of the session gets a copy, once there is one.

    What a run finds in its caches it executes, and it could find there what another one has learned. So
    only the script that the campaign began with fills them, with what is there before it is given any
    training data. Where scores are not sealed nothing says when that is, and they are copied at its end. No
    trial fills them, kept or not, and none writes where another one reads. Without a sandbox a trial can
    write to these as well, as to everything.

    The baseline's runs begin without: how long they start up is what every trial may take, and one that
    changes what is compiled has to compile it.
    """

    trusted = False
    """Whether what is measured as the baseline is the script that the campaign began with."""

    def __init__(self) -> None:
        self._held = contextlib.ExitStack()
        self._kept: Path | None = None
        self._made_in = ""

    def keep(self, folder: Path) -> None:
        """Keep a copy of the caches of a run in *folder*, if they are the first, and of the campaign's start.

        No copy is no error: all that follows compiles for itself.
        """
        source = folder / FOLDER
        if not self.trusted or self._kept is not None or not source.is_dir():
            return
        with contextlib.suppress(OSError, RecursionError, StorageError), contextlib.ExitStack() as opened:
            size = sum(path.lstat().st_size for path in source.rglob("*") if not path.is_dir())
            room = shutil.disk_usage(source).free // 4  # each run's copy wants some as well
            if 0 < size <= min(LARGEST, room):
                target = opened.enter_context(temporary.folder("compiled")) / FOLDER
                shutil.copytree(source, target, symlinks=True)
                self._kept, self._made_in = target, str(source)
                self._held = opened.pop_all()

    def copy_to(self, folder: Path) -> None:
        """Begin the caches of a run in *folder* with what was kept, if anything was and there is room."""
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
