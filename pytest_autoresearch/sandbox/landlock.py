"""Landlock: the kernel's own allow-list of paths. It needs no program and no privilege."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from pytest_autoresearch.sandbox.policy import ResolvedPolicy
from pytest_autoresearch.sandbox.supervisor import LIBRARY, LINUX, allow, call

CREATE_RULESET = 444  # a system call, the same on every architecture
ONLY_VERSION = 1  # the flag that makes it return its version
OLDEST = 3  # the first ABI that governs truncation; Linux 6.2
IOCTLS, SIGNALS, NETWORK = 5, 6, 4  # the first ABI that governs each

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = (1 << bit for bit in range(4))
TRUNCATE, IOCTL_DEV = 1 << 14, 1 << 15
ALL_RIGHTS = (1 << 16) - 1
READ = EXECUTE | READ_FILE | READ_DIR
FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
TCP = 0b11  # bind, connect
SCOPES = 0b11  # abstract Unix sockets, signals
DEVICES = ("null", "zero", "full", "random", "urandom")


def abi() -> int:
    """Return the version of this kernel's Landlock, 0 without one."""
    try:
        return call(LIBRARY.syscall, CREATE_RULESET, 0, 0, ONLY_VERSION) if LINUX else 0
    except OSError:
        return 0


def ruleset(policy: ResolvedPolicy, devices: Iterable[Path]) -> int:
    """Return the descriptor of a ruleset that enforces *policy*, with access to the device nodes *devices*.

    In a folder that holds a hidden path, names can be listed, those in the hidden folder too, because a right
    on a folder is a right on everything below. If such a folder is writable, its files can be changed, but
    nothing in it can be created, renamed or removed.
    TCP is allowed for agents only. Signals and abstract Unix sockets are confined if the kernel can do it.

    Raises:
        OSError: a path cannot be opened.
    """
    version = abi()
    handled = ALL_RIGHTS if version >= IOCTLS else ALL_RIGHTS & ~IOCTL_DEV
    ports = TCP if version >= NETWORK and not policy.agent else 0
    scopes = SCOPES if version >= SIGNALS else 0
    # A kernel refuses attributes that it does not know, unless they are 0.
    attributes = struct.pack("QQQ", handled, ports, scopes)
    rules = call(LIBRARY.syscall, CREATE_RULESET, attributes, len(attributes), 0)
    try:
        _allow(rules, policy.folder, handled)
        for device in (*(Path("/dev", name) for name in DEVICES), *devices):
            _allow(rules, device, handled & (FILE_RIGHTS | READ))
        above = {parent for path in policy.hidden for parent in path.parents}
        granted = [(path, READ) for path in (*policy.readable, Path("/proc"))]
        granted += [(path, handled) for path in policy.writable]
        for part, rights in (rule for each in granted for rule in _without(*each, policy.hidden, above)):
            with contextlib.suppress(FileNotFoundError):  # a file may be removed meanwhile
                _allow(rules, part, rights)
    except BaseException:
        os.close(rules)
        raise
    return rules


def _without(
    path: Path, rights: int, hidden: Collection[Path], above: Collection[Path]
) -> Iterator[tuple[Path, int]]:
    """Yield paths that together cover *path* without what is *hidden*, with the rights on each.

    Landlock can only add rights, so a folder *above* a hidden path gives its rights to its entries.
    """
    if path not in above:
        yield path, rights
        return
    yield path, READ_DIR  # or nothing could be imported from it
    for entry in path.iterdir():
        # A rule on a symbolic link would apply to its target, which may be hidden.
        if entry not in hidden and not entry.is_symlink():
            yield from _without(entry, rights, hidden, above)


def _allow(rules: int, path: Path, rights: int) -> None:
    allow(rules, path, rights if path.is_dir() else rights & FILE_RIGHTS)
