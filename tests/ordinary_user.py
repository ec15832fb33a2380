"""Run a command as an ordinary user, when root runs the tests.

As a script it becomes the user *nobody* and then executes the command that follows. If that user may not
enter a folder of the interpreter or the project, such as root's home, it first makes a mount namespace in
which the folder may be entered and holds nothing else. Outside nothing changes.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import os
import subprocess
import sys
from pathlib import Path

NOBODY = 65534
CLONE_NEWNS = 0x00020000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
EVERYONE_ENTERS = 0o001


class Unavailable(Exception):
    """Commands cannot be run as another user here; the message is the reason in one line."""


def as_ordinary_user(command: list[str]) -> list[str]:
    """Return the command line that runs *command* as the user nobody.

    Raises:
        Unavailable: it would not work here.
    """
    if reason := _obstacle():
        raise Unavailable(reason)
    return [*_prefix(), *command]


def _prefix() -> list[str]:
    return [sys.executable, str(Path(__file__).resolve())]


@functools.cache
def _obstacle() -> str | None:
    if os.name != "posix" or os.geteuid() != 0:
        return "the tests are run by an ordinary user already"
    program = "import os, pytest_autoresearch; assert os.geteuid()"
    tried = subprocess.run(
        [*_prefix(), sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    return None if tried.returncode == 0 else (tried.stderr.strip() or "it does not start").splitlines()[-1]


def closed_folders() -> dict[Path, set[Path]]:
    """Return the folders closed to the user nobody, with the paths in each that pytest needs."""
    needed = {Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve(), *map(Path, sys.path)}
    needed |= {Path(__file__).resolve().parents[1], Path.cwd()}
    found: dict[Path, set[Path]] = {}
    for path in {path.resolve() for path in needed if path.exists()}:
        line = [*reversed(path.parents), path]  # from the root on
        for folder, inner in itertools.pairwise(line):
            if not folder.stat().st_mode & EVERYONE_ENTERS:
                found.setdefault(folder, set()).add(inner)
                break
    return found


def open_up(closed: dict[Path, set[Path]]) -> None:
    """Mount an open folder, with the paths that are needed, over each closed one, in this namespace only."""
    library = ctypes.CDLL(None, use_errno=True)

    def mount(
        source: str, target: Path | str, kind: bytes | None, flags: int, data: bytes | None = None
    ) -> None:
        if library.mount(source.encode(), os.fsencode(target), kind, ctypes.c_ulong(flags), data):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(target))

    if library.unshare(CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "no mount namespace of our own")
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    for folder, inner in closed.items():
        # A descriptor leads to what will be out of sight.
        held = {path: os.open(path, os.O_PATH) for path in inner}
        mount("tmpfs", folder, b"tmpfs", 0, b"mode=755")
        for path, descriptor in held.items():
            path.mkdir()
            mount(f"/proc/self/fd/{descriptor}", path, None, MS_BIND | MS_REC)
            os.close(descriptor)


def main() -> None:
    """Become the user nobody, then execute the command."""
    if closed := closed_folders():
        open_up(closed)
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - never through a shell


if __name__ == "__main__":
    main()
