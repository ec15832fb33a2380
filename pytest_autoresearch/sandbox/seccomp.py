"""The seccomp filter of a sandboxed process, as the bytes of its classic BPF program.

:mod:`system_calls` explains what is denied, and why.
"""

from __future__ import annotations

import errno
import os
import platform
import signal
import struct
from collections.abc import Collection

from pytest_autoresearch.sandbox import system_calls

NEW_NAMESPACES = 0x7E020000  # the CLONE_NEW* flags of clone
# F_SETOWN, F_SETSIG, F_SETOWN_EX, F_SETLEASE, F_SETDELEG; and F_SET_RW_HINT, which changes the file too
FCNTL_COMMANDS = (8, 10, 15, 1024, 1040, 1036, 1038)
SCHED_CORE = 62  # an option of prctl
TERMINAL = (0x8901, 0x8902, 0x5412, 0x541C)  # FIOSETOWN, SIOCSPGRP, TIOCSTI, TIOCLINUX
# The second lowest byte of an ioctl names who defined it. These are of file systems: ext4 and those that have
# copied it, versions, XFS, Btrfs, FAT, F2FS, Ceph, SMB, bcachefs. Some change a file through a read-only
# descriptor. Drivers of GPUs have F, d, K, m and 0.
FILE_SYSTEMS = (*b"fvXr", 0x94, 0xF5, 0x97, 0xCF, 0xBC)
EVICTING = (20, 21)  # MADV_COLD, MADV_PAGEOUT
NO_WAIT = 0x8  # RWF_NOWAIT, which reads only what is cached
AF_UNIX = 1
INTERNET = (2, 10, 16)  # AF_INET, AF_INET6, and AF_NETLINK, by which the C library learns of interfaces

ALLOW, KILL_PROCESS, ERROR = 0x7FFF0000, 0x80000000, 0x00050000
DENY, UNKNOWN, PRETEND, ASK = ERROR | errno.EPERM, ERROR | errno.ENOSYS, ERROR, 0x7FC00000
# For sockets: libraries then go on without the service behind them, as on a kernel built without the family.
# NVIDIA's ask for a daemon, and are known to give up where that is denied.
NO_FAMILY = ERROR | errno.EAFNOSUPPORT
UNSUPPORTED = ERROR | errno.EOPNOTSUPP  # as of a file system without the feature; programs handle it

# Classic BPF: load a word of `struct seccomp_data`, compare it, jump, return.
LOAD, AND, EQUAL, AT_LEAST, JUMP, RETURN = 0x20, 0x54, 0x15, 0x35, 0x05, 0x06
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16  # offsets in bytes; an argument has 8, the lower word first
WORD = 0xFFFFFFFF


def program(*, isolated: bool, scoped: bool = True, agent: bool = False) -> bytes:
    """Return the filter, an array of ``struct sock_filter``.

    Args:
        isolated: a network namespace hides the host's sockets, so that Unix sockets, which DataLoader workers
            need, are allowed.
        scoped: the kernel confines signals to the run. If not, the filter has a listener that must answer for
            every signal except one to the caller's own process group.
        agent: for an agent, which may use the Internet and change attributes of files, some of which are its
            own. It gets no Unix sockets, through which it could ask others to read what it may not.
    """
    _, architecture = system_calls.ARCHITECTURES[platform.machine()]
    code = [
        _op(LOAD, ARCHITECTURE),
        _op(EQUAL, architecture, 1, 0),
        _op(RETURN, KILL_PROCESS),
        _op(LOAD, NUMBER),
        _op(AT_LEAST, system_calls.NEWEST, 0, 1),
        _op(RETURN, UNKNOWN),
    ]
    for name in system_calls.FORBIDDEN:
        code += _call(name, [_op(RETURN, DENY)])
    if not agent:
        code += _only_for_runs()
    for name, oneself in system_calls.ON_SELF.items():
        conditions = [_unless(argument, [value]) for argument, value in oneself.items()]
        code += _call(name, [step for condition in conditions for step in condition])
    code += _call("sched_setaffinity", _unless(0, [0], otherwise=PRETEND))
    code += _call("kill", _deny(0, [-1]))
    if not scoped:
        for name in system_calls.SIGNALS:
            code += _call(name, _unless(0, [0] if name == "kill" else [], otherwise=ASK))
    negative = [_argument(0), _op(AT_LEAST, 1 << 31, 0, 1), _op(RETURN, DENY), _op(LOAD, NUMBER)]
    for name in ("timer_create", "clock_nanosleep"):
        code += _call(name, negative)
    code += _call("prctl", _deny(0, [SCHED_CORE]))
    families = [AF_UNIX] if isolated else INTERNET if agent else []
    code += _call("socket", _unless(0, families, otherwise=NO_FAMILY))
    code += _call("socketpair", _unless(0, [AF_UNIX]))
    code += _call("clone", _unless(0, [0], mask=NEW_NAMESPACES))
    code += _call("clone3", [_op(RETURN, UNKNOWN)])  # its flags lie in memory; libc falls back to clone
    code += _call("fcntl", _deny(1, FCNTL_COMMANDS))
    types = [kind << 8 for kind in FILE_SYSTEMS]
    code += _call("ioctl", [*_deny(1, TERMINAL), *_deny(1, types, answer=UNSUPPORTED, mask=0xFF00)])
    return b"".join([*code, _op(RETURN, ALLOW)])


def _only_for_runs() -> list[bytes]:
    """Return the rules that an agent is not under."""
    code = []
    for name in system_calls.NOT_FOR_RUNS:
        code += _call(name, [_op(RETURN, DENY)])
    for name in (*system_calls.ATTRIBUTES, "fadvise64"):
        code += _call(name, [_op(RETURN, PRETEND)])
    code += _call("madvise", _deny(2, EVICTING, answer=PRETEND))
    for name in ("preadv2", "pwritev2"):
        code += _call(name, _unless(5, [0], otherwise=UNSUPPORTED, mask=NO_WAIT))
    # A process that ignores SIGCHLD waits for no child, and the processor time of its children is then in no
    # process's account. So to set an action for it succeeds without effect.
    keep_waiting = [
        _argument(0),
        _op(EQUAL, signal.SIGCHLD, 0, 5),
        _argument(1),  # the new action; without one the call only reads
        _op(EQUAL, 0, 0, 2),
        _op(LOAD, ARGUMENTS + 8 * 1 + 4),
        _op(EQUAL, 0, 1, 0),
        _op(RETURN, PRETEND),
        _op(LOAD, NUMBER),
    ]
    return code + _call("rt_sigaction", keep_waiting)


def descriptor(filter_: bytes) -> int:
    """Return a new descriptor from which *filter_* can be read."""
    memory = os.memfd_create("seccomp")
    os.write(memory, filter_)
    os.lseek(memory, 0, os.SEEK_SET)
    return memory


def _op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value & WORD)


def _call(name: str, body: list[bytes]) -> list[bytes]:
    """Return *body* as the rule of one system call; what it lets through goes on to the next rule."""
    return [_op(EQUAL, system_calls.number(name), 0, len(body)), *body] if system_calls.exists(name) else []


def _deny(argument: int, values: Collection[int], *, answer: int = DENY, mask: int = WORD) -> list[bytes]:
    """Return *answer* if the lower 32 bits of an argument, under *mask*, are one of *values*."""
    comparisons = [_op(EQUAL, value, len(values) - index + 1, 0) for index, value in enumerate(values)]
    # The number is loaded again for the next rules.
    rest = [_op(LOAD, NUMBER), _op(JUMP, 1), _op(RETURN, answer)]
    return [_argument(argument), _op(AND, mask), *comparisons, *rest]


def _unless(
    argument: int, values: Collection[int], *, otherwise: int = DENY, mask: int = WORD
) -> list[bytes]:
    """Return *otherwise* unless the lower 32 bits of an argument, under *mask*, are one of *values*."""
    comparisons = [_op(EQUAL, value, len(values) - index, 0) for index, value in enumerate(values)]
    return [_argument(argument), _op(AND, mask), *comparisons, _op(RETURN, otherwise), _op(LOAD, NUMBER)]


def _argument(index: int) -> bytes:
    return _op(LOAD, ARGUMENTS + 8 * index)
