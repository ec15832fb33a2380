"""Landlock: the kernel's own allow-list of paths, which needs neither an install nor a privilege."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import sys
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

CREATE_RULESET, ADD_RULE = 444, 445  # system calls, of every architecture
ONLY_VERSION = 1  # asks create_ruleset for nothing but its version
PATH_BENEATH = 1
OLDEST = 3  # the first ABI that governs truncation; Linux 6.2
IOCTLS, SIGNALS, NETWORK = 5, 6, 4  # the first ABI that governs each

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = (1 << bit for bit in range(4))
TRUNCATE, IOCTL_DEV = 1 << 14, 1 << 15
EVERYTHING = (1 << 16) - 1
READ = EXECUTE | READ_FILE | READ_DIR
OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
TCP = 0b11  # bind, connect
SCOPES = 0b11  # abstract Unix sockets, signals


def abi() -> int:
    """Return the version of this kernel's Landlock, 0 where there is none."""
    try:
        return _system_call(CREATE_RULESET, None, 0, ONLY_VERSION)
    except OSError:
        return 0


def ruleset(
    folder: Path,
    readable: Iterable[Path],
    hidden: Collection[Path],
    devices: Iterable[Path],
    *,
    writable: Iterable[Path] = (),
    network: bool = False,
) -> int:
    """Return the descriptor of a ruleset; who enters it can do nothing else to files.

    It cannot signal outside, as far as this kernel's version goes.

    Args:
        folder: everything is allowed here.
        readable: files and folders to read and execute.
        hidden: what of that stays closed. The names in a folder that holds a hidden path can be listed,
            those in the hidden one too, since rights on a folder are rights on all below it.
        devices: to read, write and control.
        writable: files and folders to change as well. In a folder that holds a hidden path nothing new can be
            made, and what lies there can be changed, but neither renamed nor removed.
        network: whether TCP stays allowed.

    Every path is a real one.

    Raises:
        OSError: a path cannot be opened.
    """
    version = abi()
    handled = EVERYTHING if version >= IOCTLS else EVERYTHING & ~IOCTL_DEV
    ports = TCP if version >= NETWORK and not network else 0
    scopes = SCOPES if version >= SIGNALS else 0
    # A kernel refuses an attribute that it does not know, unless it is 0.
    attributes = struct.pack("QQQ", handled, ports, scopes)
    rules = _system_call(CREATE_RULESET, attributes, len(attributes), 0)
    try:
        _allow(rules, folder, handled)
        for device in devices:
            _allow(rules, device, handled & (OF_FILES | READ))
        above = {parent for path in hidden for parent in path.parents}
        for paths, granted in ((readable, READ), (writable, handled)):
            for part, rights in (one for path in paths for one in _without(path, granted, hidden, above)):
                with contextlib.suppress(FileNotFoundError):  # a member may go while we look
                    _allow(rules, part, rights)
    except BaseException:
        os.close(rules)
        raise
    return rules


def _without(
    path: Path, rights: int, hidden: Collection[Path], above: Collection[Path]
) -> Iterator[tuple[Path, int]]:
    """Yield the parts of *path* that cover all of it but *hidden*, and which of the *rights* each gets.

    Landlock only ever adds rights, so a folder *above* something hidden gives its rights to its members.
    """
    if path not in above:
        yield path, rights
        return
    yield path, READ_DIR  # or nothing could be imported from it
    for member in path.iterdir():
        # A rule on a symbolic link would be one on its target, which may be hidden.
        if member not in hidden and not member.is_symlink():
            yield from _without(member, rights, hidden, above)


def _allow(rules: int, path: Path, rights: int) -> None:
    opened = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        allowed = rights if path.is_dir() else rights & OF_FILES
        _system_call(ADD_RULE, rules, PATH_BENEATH, struct.pack("=Qi", allowed, opened), 0)
    finally:
        os.close(opened)


def _system_call(number: int, *arguments: int | bytes | None) -> int:
    """Make a system call.

    Raises:
        OSError: it failed, or there are no such calls on this platform.
    """
    if sys.platform != "linux":
        raise OSError("not Linux")
    library = ctypes.CDLL(None, use_errno=True)
    words = [ctypes.c_long(item) if isinstance(item, int) else item for item in arguments]
    answer = int(library.syscall(ctypes.c_long(number), *words))
    if answer < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return answer
