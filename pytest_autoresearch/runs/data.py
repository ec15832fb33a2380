"""What an experiment's runs may read, and when."""

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

SHARED, TRAINING, VALIDATION = "shared_data", "training_data", "validation_data"


@dataclasses.dataclass(frozen=True, slots=True)
class Data:
    """The files of an experiment by who may read them, as its ``prepare.py`` lists them."""

    shared: tuple[Path, ...] = ()
    """Files and folders that a run may read from its start."""
    training: tuple[Path, ...] = ()
    """Files with the first of which a run's clock starts."""
    validation: tuple[Path, ...] = ()
    """Files and folders that no run may read, and the scorer may. If there are any, scores are sealed."""

    @classmethod
    def described(cls, values: Mapping[str, str]) -> Self:
        """Read the lists in the block that ``prepare.py`` prints: JSON arrays of absolute paths.

        Raises:
            ValueError: one is not such an array, or a file is not there; the message is one line.
        """
        return cls(*(_paths(key, values.get(key, "[]")) for key in (SHARED, TRAINING, VALIDATION)))

    def is_training(self, name: str) -> bool:
        """Tell whether *name* is that of a file of training data."""
        return any(path.name == name for path in self.training)

    def open(self, name: str) -> int | None:
        """Return a descriptor of the file called *name*, None if there is none for a run.

        A run could open what the descriptor stands for once more, to write; so it stands for a copy in
        memory that the kernel lets nobody change. One copy serves all runs of the session.
        """
        for path in (*self.training, *self.shared):
            if path.name == name and path.is_file():
                if sys.platform != "linux":
                    return os.open(path, os.O_RDONLY)
                copy = _sealed_copy(path)
                os.pread(copy, 1, 0)  # or its time of access would tell what the run before has left there
                return os.open(f"/proc/self/fd/{copy}", os.O_RDONLY | os.O_CLOEXEC)
        return None


@cache
def _sealed_copy(path: Path) -> int:
    """Return a descriptor of a copy of *path* in memory that cannot be written to; it stays open."""
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
