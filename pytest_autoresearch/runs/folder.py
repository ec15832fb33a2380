"""The fresh folder of a run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from pytest_autoresearch.system import temporary
from pytest_autoresearch.system.files import writing


@contextlib.contextmanager
def fresh_folder(files: Mapping[str, str]) -> Iterator[Path]:
    """Yield a new folder that holds *files*, path and text of each, and remove it afterwards.

    Raises:
        ValueError: a path leaves the folder.
        StorageError: the folder cannot be written.
    """
    if leaving := [path for path in files if not _stays_inside(path)]:
        raise ValueError(f"{leaving[0]!r} is no path inside of a run's folder")
    with temporary.folder("run") as folder:
        with writing(folder):
            for path, text in files.items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(text.encode())
        yield folder


def _stays_inside(path: str) -> bool:
    pure = PurePosixPath(path)
    return bool(pure.name) and not pure.is_absolute() and ".." not in pure.parts
