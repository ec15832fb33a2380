"""The data of an experiment: which files a run may read, and when."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import shutil
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Self

VALIDATION = "validation_data"
KEYS = ("shared_data", "training_data", VALIDATION)


@dataclasses.dataclass(frozen=True, slots=True)
class Data:
    """The files of an experiment by who may read them, as its ``prepare.py`` lists them."""

    shared: tuple[Path, ...] = ()
    """Files and folders that a run may read from its start."""
    training: tuple[Path, ...] = ()
    """Files for runs; the first that a run opens starts its clock."""
    validation: tuple[Path, ...] = ()
    """Files and folders that only the scorer may read. If there are any, scores are sealed."""

    @classmethod
    def described(cls, values: Mapping[str, str]) -> Self:
        """Read the lists in the block that ``prepare.py`` prints: JSON arrays of absolute paths.

        Raises:
            ValueError: one is not such an array, or a file does not exist; the message is one line.
        """
        return cls(*(_paths(key, values.get(key, "[]")) for key in KEYS))

    @property
    def held_back(self) -> tuple[Path, ...]:
        """What a run may not read from the disk: validation data, and training data, for its clock's sake."""
        return (*self.validation, *self.training)

    def is_training(self, name: str) -> bool:
        """Tell whether a file of training data is called *name*."""
        return any(path.name == name for path in self.training)

    def open(self, name: str) -> int | None:
        """Return a descriptor of the file called *name*, None if a run may read no such file.

        A run could reopen the file behind a descriptor for writing. So the descriptor leads to a copy in
        memory that the kernel protects from changes. One copy serves all runs of the session.
        """
        for path in (*self.training, *self.shared):
            if path.name == name and path.is_file():
                if sys.platform != "linux":
                    return os.open(path, os.O_RDONLY)
                copy = _sealed_copy(path)
                os.pread(copy, 1, 0)  # else its access time would be a message from the run before
                return os.open(f"/proc/self/fd/{copy}", os.O_RDONLY | os.O_CLOEXEC)
        return None


@cache
def _sealed_copy(path: Path) -> int:
    """Return a descriptor of a read-only copy of *path* in memory; it stays open."""
    assert sys.platform == "linux"
    descriptor = os.memfd_create(path.name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with path.open("rb") as source, os.fdopen(descriptor, "wb", closefd=False) as target:
        shutil.copyfileobj(source, target, 1 << 20)
    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def _paths(key: str, text: str) -> tuple[Path, ...]:
    try:
        names = json.loads(text)
        paths = tuple(map(Path, names))
    except (ValueError, TypeError):
        paths, names = (), None
    if not isinstance(names, list) or not all(path.is_absolute() for path in paths):
        raise ValueError(f"{key} is a JSON array of absolute paths, not {text[:60]}")
    for path in paths:
        if not path.exists():
            raise ValueError(f"{key} names {path}, which does not exist")
    return paths
