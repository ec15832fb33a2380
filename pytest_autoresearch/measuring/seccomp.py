"""The system calls that a run may not make: a seccomp filter, as the bytes of its BPF program."""

from __future__ import annotations

import errno
import os
import platform
import signal
import struct
import sys
from collections.abc import Collection, Iterable

# What neither an allow-list of paths nor a namespace governs, by name: its number on x86_64 and on aarch64.
FORBIDDEN = {
    # other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),  # a descriptor of /proc/PID does for it, which no filter can look into
    "tkill": (200, 130),  # a thread of any process; the C library uses tgkill
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    # what outlives a run, or is shared with the next one
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "semget": (64, 190),
    "semop": (65, 193),
    "semtimedop": (220, 192),
    "semctl": (66, 191),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    # ways round this filter, and the kernel's widest doors
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "modify_ldt": (154, None),
    # another view of the file system
    "unshare": (272, 97),
    "setns": (308, 268),
    "chroot": (161, 51),
    "pivot_root": (155, 41),
    "mount": (165, 40),
    "umount2": (166, 39),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "statmount": (457, 457),
    "listmount": (458, 458),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "lookup_dcookie": (212, 18),
    "nfsservctl": (180, 42),
    # the machine: its clock above all
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "syslog": (103, 116),
    "vhangup": (153, 58),
    "iopl": (172, None),
    "ioperm": (173, None),
}

# Landlock does not govern a file's attributes, and with the user's own uid a run could change those of any
# of the user's files; and nobody's seals cover them, so that one run could leave in those of the data that it
# is handed what the next one then finds. Refusing would break `shutil.copy`; so the change seems to succeed,
# and is not made.
ATTRIBUTES = {
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "lchown": (94, None),
    "fchown": (93, 55),
    "fchownat": (260, 54),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
}

# Calls that name a process, and which of their arguments does.
AIMED = {
    "kill": (62, 129, 0),
    "tgkill": (234, 131, 0),
    "rt_sigqueueinfo": (129, 138, 0),
    "rt_tgsigqueueinfo": (297, 240, 0),
    "pidfd_open": (434, 434, 0),
    "prlimit64": (302, 261, 0),
    "sched_setaffinity": (203, 122, 0),
    "sched_setscheduler": (144, 119, 0),
    "sched_setparam": (142, 118, 0),
    "sched_setattr": (314, 274, 0),
    "setpriority": (141, 140, 1),
    "ioprio_set": (251, 30, 1),
}

CLONE, CLONE3, SOCKET, SOCKETPAIR = (56, 220), (435, 435), (41, 198), (53, 199)
FCNTL, IOCTL, SETPRIORITY, SIGACTION = (72, 25), (16, 29), (141, 140), (13, 134)
NEWEST = 463  # the first call that came after this list: whatever else it is, it is not needed
NEW_NAMESPACES = 0x7E020000  # the CLONE_NEW* flags of clone
CONTROLS = (8, 15, 1036, 1038)  # F_SETOWN, F_SETOWN_EX: who gets its signal; F_SET_RW_HINT, of the file too
TERMINAL = (0x8901, 0x8902, 0x5412, 0x541C)  # FIOSETOWN, SIOCSPGRP, TIOCSTI, TIOCLINUX
FLAGS = (
    0x40086602,
    0x40046602,
    0x401C5820,
    0x40087602,
)  # FS_IOC_SETFLAGS, its 32 bits, FSSETXATTR, SETVERSION
AF_UNIX = 1
INTERNET = (2, 10, 16)  # AF_INET, AF_INET6, and AF_NETLINK, by which the C library learns of interfaces

ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # its column, its AUDIT_ARCH
ALLOW, KILL_PROCESS, ERROR = 0x7FFF0000, 0x80000000, 0x00050000
DENY, UNKNOWN, PRETEND = ERROR | errno.EPERM, ERROR | errno.ENOSYS, ERROR

# Classic BPF: load a word of `struct seccomp_data`, compare it, jump, return.
LOAD, AND, EQUAL, AT_LEAST, JUMP, RETURN = 0x20, 0x54, 0x15, 0x35, 0x05, 0x06
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16  # offsets in bytes; an argument has 8, the lower word first
WORD = 0xFFFFFFFF


def supported() -> bool:
    """Return whether the numbers of this machine's system calls are known here."""
    # A 32-bit Python on a 64-bit kernel makes the calls of another architecture.
    return sys.platform == "linux" and sys.maxsize > 1 << 32 and platform.machine() in ARCHITECTURES


def program(*, isolated: bool, protected: Collection[int] = (), agent: bool = False) -> bytes:
    """Return the filter, an array of ``struct sock_filter``.

    Args:
        isolated: a namespace keeps the host's sockets from the run already, so it may use Unix sockets,
            which DataLoader workers need.
        protected: process ids, and negated process group ids, that the run may not signal or slow down.
        agent: it is no run but an agent, which may use the Internet, and change the attributes of files, for
            some are its own. By a Unix socket it could ask others to read what it may not.
    """
    column, architecture = ARCHITECTURES[platform.machine()]
    targets = sorted({-1, *protected})
    code = [
        _op(LOAD, ARCHITECTURE),
        _op(EQUAL, architecture, 1, 0),
        _op(RETURN, KILL_PROCESS),
        _op(LOAD, NUMBER),
        _op(AT_LEAST, NEWEST, 0, 1),
        _op(RETURN, UNKNOWN),
    ]
    for numbers in FORBIDDEN.values():
        code += _call(numbers[column], [_op(RETURN, DENY)])
    if not agent:
        for numbers in ATTRIBUTES.values():
            code += _call(numbers[column], [_op(RETURN, PRETEND)])
        code += _call(SIGACTION[column], _mourn())
    for *aimed, argument in AIMED.values():
        code += _call(aimed[column], _deny(argument, targets))
    unix = _deny_others(0, [AF_UNIX])
    others = _deny_others(0, INTERNET) if agent else [_op(RETURN, DENY)]
    code += _call(SOCKET[column], unix if isolated else others)
    code += _call(SOCKETPAIR[column], unix)
    code += _call(CLONE[column], _deny_others(0, [0], NEW_NAMESPACES))
    code += _call(CLONE3[column], [_op(RETURN, UNKNOWN)])  # its flags lie in memory; libc falls back to clone
    code += _call(SETPRIORITY[column], _deny_others(0, [0]))  # PRIO_PROCESS; the others reach all of a user's
    code += _call(FCNTL[column], _deny(1, CONTROLS))
    code += _call(IOCTL[column], _deny(1, [*TERMINAL, *FLAGS]))
    return b"".join([*code, _op(RETURN, ALLOW)])


def descriptor(filter_: bytes) -> int:
    """Return a new descriptor from which *filter_* can be read."""
    memory = os.memfd_create("seccomp")
    os.write(memory, filter_)
    os.lseek(memory, 0, os.SEEK_SET)
    return memory


def _op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value & WORD)


def _call(number: int | None, body: list[bytes]) -> list[bytes]:
    """Return *body* to be run for one system call; what it lets through goes on behind it."""
    return [] if number is None else [_op(EQUAL, number, 0, len(body)), *body]


def _deny(argument: int, values: Iterable[int]) -> list[bytes]:
    """Deny the call when an argument, of 32 bits, is one of *values*."""
    values = list(values)
    comparisons = [_op(EQUAL, value, len(values) - index + 1, 0) for index, value in enumerate(values)]
    # The number is loaded again for the rules that follow.
    return [_argument(argument), *comparisons, _op(LOAD, NUMBER), _op(JUMP, 1), _op(RETURN, DENY)]


def _deny_others(argument: int, values: Iterable[int], mask: int = WORD) -> list[bytes]:
    """Deny the call unless an argument, of 32 bits, is one of *values* under *mask*."""
    values = list(values)
    comparisons = [_op(EQUAL, value, len(values) - index, 0) for index, value in enumerate(values)]
    return [_argument(argument), _op(AND, mask), *comparisons, _op(RETURN, DENY), _op(LOAD, NUMBER)]


def _mourn() -> list[bytes]:
    """Pretend to set what happens at SIGCHLD, and leave it as it is.

    Children whose ends are ignored are waited for by nobody, and the processor's time that they used is
    then in nobody's account.
    """
    return [
        _argument(0),
        _op(EQUAL, signal.SIGCHLD, 0, 5),
        _argument(1),  # the new action; without one the call only asks
        _op(EQUAL, 0, 0, 2),
        _op(LOAD, ARGUMENTS + 8 * 1 + 4),
        _op(EQUAL, 0, 1, 0),
        _op(RETURN, PRETEND),
        _op(LOAD, NUMBER),
    ]


def _argument(index: int) -> bytes:
    return _op(LOAD, ARGUMENTS + 8 * index)
