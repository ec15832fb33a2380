"""The system calls that a run may not make: a seccomp filter, as the bytes of its BPF program.

A run has the user id of pytest, so the kernel alone would let it signal, slow down or limit every process of
the user. The table lists every call of Linux 6.18 that can name another task, and what happens to it; newer
calls do not exist for a run. A process id in these calls may also be the id of a thread, so a list of
protected ids would protect nobody. The filter is the same under bubblewrap, whose PID namespace has no
number for a task outside, and under Landlock.

=========================================  ======================  ========================================
call                                       names the task by       what is done, and why
=========================================  ======================  ========================================
kill                                       process, thread, group  reaches only the run: a PID namespace or
                                                                   Landlock's scope sees to it, else the
                                                                   warden is asked (``scoped``); -1, which
                                                                   is everybody, is denied
tgkill rt_sigqueueinfo rt_tgsigqueueinfo   process, thread         the same
tkill                                      thread                  denied: the C library uses tgkill
pidfd_send_signal pidfd_getfd              descriptor of a         denied: whoever opens /proc/PID has such
process_madvise process_mrelease setns     process                 a descriptor, which a filter cannot see
pidfd_open                                 process                 denied: programs then wait by SIGCHLD
prlimit64 sched_setscheduler               process, thread         allowed for 0, the caller; else denied
sched_setparam sched_setattr
setpriority ioprio_set                     process, thread,        allowed for process 0, the caller; else
                                           group, user             denied
sched_setaffinity                          process, thread         allowed for 0; else it does nothing and
                                                                   succeeds, for OpenMP pins its threads
timer_create clock_nanosleep               processor clock, < 0    denied: the clock's owner has the work of
                                                                   every timer that expires
ptrace process_vm_readv process_vm_writev  process, thread         denied
kcmp migrate_pages move_pages
perf_event_open get_robust_list
prctl(PR_SCHED_CORE)                       process, group          denied: it keeps others off a core
fcntl(F_SETOWN, F_SETOWN_EX, F_SETSIG)     process, group          denied: they direct a file's signals
ioctl(FIOSETOWN, SIOCSPGRP)                process, group          denied, as F_SETOWN
fcntl(F_SETLEASE, F_SETDELEG)              who opens the file      denied: the other one has to wait
ioctl(TIOCSTI, TIOCLINUX), vhangup         who has the terminal    denied
System V IPC, keyctl, bpf, io_uring        identifiers             denied
setpgid                                    process, group          harmless: takes only the caller and its
                                                                   children, within the run's session
ioctl(TIOCSPGRP, TIOCSIG, TIOCNOTTY),      session of a terminal,  harmless: a run has no terminal from
O_ASYNC, FIOASYNC                          owner of a file         outside, and its files have no owner
wait4 waitid                               process, descriptor     harmless: only children
clone(CLONE_PARENT), prctl(                parent                  harmless: all stay below the warden
PR_SET_CHILD_SUBREAPER, PR_SET_PDEATHSIG)
prctl(PR_SET_PTRACER)                      process                 harmless: grants a right on the caller
capset                                     process                 harmless: takes only the caller
futex(FUTEX_LOCK_PI)                       thread, in memory       harmless: can only raise its priority, to
                                                                   the caller's
timer_create(SIGEV_THREAD_ID), seccomp(    thread                  harmless: only threads of the caller
SECCOMP_FILTER_FLAG_TSYNC)
mq_notify                                  queue                   harmless: no queue can be opened
membarrier                                 processors              harmless: a moment of each processor
getpgid getsid getpriority ioprio_get      process, thread         harmless: they only tell
sched_get* capget clock_gettime
=========================================  ======================  ========================================

Other calls name nobody, and yet reach others: by what the kernel has once for all of a user or the machine.

=====================================  ===========  =========================================================
what is shared                         by all of    what is done, and what stays
=====================================  ===========  =========================================================
attributes and versions of files       the machine  nothing is changed, by ATTRIBUTES or by an ioctl of a
                                                    file system, which need no right to write
which files are in the page cache      the machine  no answers; advice to evict does nothing. Stays:
                                                    who reads a file brings it in, and the next one can tell
                                                    by the time that reading takes, or by its page faults
names of files, and who opens them     the machine  inotify and fanotify are denied. Stays under Landlock:
                                                    what stat tells of a name that is known, last access too
timers, and epolls that wait for them  processors   denied, signalfd too. Stays: an alarm for each process;
                                                    a sleep ends when its thread is stopped
AIO slots; io_uring, BPF               the machine  denied
keys, message queues, System V IPC     the user     denied
inotify instances and watches          the user     denied
descriptors in sockets                 the user     supervisor.py: a run may open fewer files than pytest
epoll watches, queued signals, pipes,  the user     stays, until the run ends: who wants more of them
processes and their numbers                         meanwhile gets an error, of pipes smaller ones
locks                                  the file     stays: on files that it may read, and nobody else locks
command lines, /proc/locks             the machine  stays under Landlock: they can be read
=====================================  ===========  =========================================================

Files can act on other tasks too, without any of these calls. But of /proc a run can write only to what is of
its own processes, under Landlock of its first process's threads (supervisor.py), and neither enforcer lets it
see /sys/fs/cgroup. Real-time scheduling or a higher priority of the run itself would starve all others; it
needs a capability or a resource limit, and the run has neither (supervisor.py).
"""

from __future__ import annotations

import errno
import os
import platform
import signal
import struct
import sys
from collections.abc import Collection

# What neither an allow-list of paths nor a namespace governs, by name: its number on x86_64 and on aarch64.
FORBIDDEN = {
    # other tasks
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "kcmp": (312, 272),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "tkill": (200, 130),
    "get_robust_list": (274, 100),
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
    "io_setup": (206, 0),
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

# What tells of others or slows them down, and an honest run can do without; an agent's programs may need it.
NOT_FOR_RUNS = {
    # which files, and which parts of them, somebody has read
    "mincore": (27, 232),
    "cachestat": (451, 451),
    "inotify_init": (253, None),
    "inotify_init1": (294, 26),
    "inotify_add_watch": (254, 27),
    # what fires while a run is stopped, any number of times for each of its processes
    "timer_create": (222, 107),
    "timerfd_create": (283, 85),
    "signalfd": (282, None),
    "signalfd4": (289, 74),
}

# Calls that act on oneself or on another: which values of their arguments mean oneself.
ONESELF = {
    "prlimit64": (302, 261, {0: 0}),
    "sched_setscheduler": (144, 119, {0: 0}),
    "sched_setparam": (142, 118, {0: 0}),
    "sched_setattr": (314, 274, {0: 0}),
    "setpriority": (141, 140, {0: 0, 1: 0}),  # PRIO_PROCESS
    "ioprio_set": (251, 30, {0: 1, 1: 0}),  # IOPRIO_WHO_PROCESS
}
SIGNALS = {
    "kill": (62, 129),
    "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
}
CLOCKS = {"timer_create": (222, 107), "clock_nanosleep": (230, 115)}

CLONE, CLONE3, SOCKET, SOCKETPAIR = (56, 220), (435, 435), (41, 198), (53, 199)
FCNTL, IOCTL, PRCTL, SIGACTION = (72, 25), (16, 29), (157, 167), (13, 134)
SETAFFINITY, SECCOMP = (203, 122), (317, 277)
FADVISE, MADVISE, PREADV2, PWRITEV2 = (221, 223), (28, 233), (327, 286), (328, 287)
NEWEST = 463  # the first call that came after this list: whatever else it is, it is not needed
NEW_NAMESPACES = 0x7E020000  # the CLONE_NEW* flags of clone
# F_SETOWN, F_SETSIG, F_SETOWN_EX, F_SETLEASE, F_SETDELEG; and F_SET_RW_HINT, of the file too
CONTROLS = (8, 10, 15, 1024, 1040, 1036, 1038)
SCHED_CORE = 62  # an option of prctl
TERMINAL = (0x8901, 0x8902, 0x5412, 0x541C)  # FIOSETOWN, SIOCSPGRP, TIOCSTI, TIOCLINUX
# The second lowest byte of an ioctl says who has defined it. All file systems together: ext4 and whatever has
# taken over from it, versions, XFS, Btrfs, FAT, F2FS, Ceph, SMB, bcachefs. Some of theirs change a file by a
# descriptor that only reads. Drivers of GPUs have F, d, K, m and 0.
FILE_SYSTEMS = (*b"fvXr", 0x94, 0xF5, 0x97, 0xCF, 0xBC)
EVICTING = (20, 21)  # MADV_COLD, MADV_PAGEOUT
NO_WAIT = 0x8  # RWF_NOWAIT, which reads only what is cached
AF_UNIX = 1
INTERNET = (2, 10, 16)  # AF_INET, AF_INET6, and AF_NETLINK, by which the C library learns of interfaces

ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # its column, its AUDIT_ARCH
ALLOW, KILL_PROCESS, ERROR = 0x7FFF0000, 0x80000000, 0x00050000
DENY, UNKNOWN, PRETEND, ASK = ERROR | errno.EPERM, ERROR | errno.ENOSYS, ERROR, 0x7FC00000
# Of sockets: libraries then go on without the service behind them, as on a kernel that was built without any.
# NVIDIA's ask for a daemon, and are known to give up where that is denied.
NO_FAMILY = ERROR | errno.EAFNOSUPPORT
UNSUPPORTED = ERROR | errno.EOPNOTSUPP  # as of a file system that has no such thing: programs know what to do

# Classic BPF: load a word of `struct seccomp_data`, compare it, jump, return.
LOAD, AND, EQUAL, AT_LEAST, JUMP, RETURN = 0x20, 0x54, 0x15, 0x35, 0x05, 0x06
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16  # offsets in bytes; an argument has 8, the lower word first
WORD = 0xFFFFFFFF


def supported() -> bool:
    """Return whether the numbers of this machine's system calls are known here."""
    # A 32-bit Python on a 64-bit kernel makes the calls of another architecture.
    return sys.platform == "linux" and sys.maxsize > 1 << 32 and platform.machine() in ARCHITECTURES


def number(call: tuple[int, int]) -> int:
    """Return the number that a system call has on this machine."""
    return call[ARCHITECTURES[platform.machine()][0]]


def program(*, isolated: bool, scoped: bool = True, agent: bool = False) -> bytes:
    """Return the filter, an array of ``struct sock_filter``.

    Args:
        isolated: a namespace keeps the host's sockets from the run already, so it may use Unix sockets,
            which DataLoader workers need.
        scoped: the kernel lets signals of the run reach the run alone. If it does not, whoever installs the
            filter has to listen, and to answer for every signal that is not to one's own group.
        agent: it is no run but an agent, which may use the Internet, and change the attributes of files, for
            some are its own. By a Unix socket it could ask others to read what it may not.
    """
    column, architecture = ARCHITECTURES[platform.machine()]
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
        for numbers in NOT_FOR_RUNS.values():
            code += _call(numbers[column], [_op(RETURN, DENY)])
        for numbers in (*ATTRIBUTES.values(), FADVISE):
            code += _call(numbers[column], [_op(RETURN, PRETEND)])
        code += _call(MADVISE[column], _deny(2, EVICTING, answer=PRETEND))
        for reading in (PREADV2, PWRITEV2):
            code += _call(reading[column], _unless(5, [0], otherwise=UNSUPPORTED, mask=NO_WAIT))
        code += _call(SIGACTION[column], _mourn())
    for *oneself, arguments in ONESELF.values():
        conditions = [_unless(argument, [value]) for argument, value in arguments.items()]
        code += _call(oneself[column], [step for condition in conditions for step in condition])
    code += _call(SETAFFINITY[column], _unless(0, [0], otherwise=PRETEND))
    code += _call(SIGNALS["kill"][column], _deny(0, [-1]))
    if not scoped:
        for name, signalling in SIGNALS.items():
            own_group = [0] if name == "kill" else []
            code += _call(signalling[column], _unless(0, own_group, otherwise=ASK))
    for timing in CLOCKS.values():
        code += _call(timing[column], _deny_negative(0))
    code += _call(PRCTL[column], _deny(0, [SCHED_CORE]))
    families = [AF_UNIX] if isolated else INTERNET if agent else []
    code += _call(SOCKET[column], _unless(0, families, otherwise=NO_FAMILY))
    code += _call(SOCKETPAIR[column], _unless(0, [AF_UNIX]))
    code += _call(CLONE[column], _unless(0, [0], mask=NEW_NAMESPACES))
    code += _call(CLONE3[column], [_op(RETURN, UNKNOWN)])  # its flags lie in memory; libc falls back to clone
    code += _call(FCNTL[column], _deny(1, CONTROLS))
    types = [kind << 8 for kind in FILE_SYSTEMS]
    of_files = _deny(1, types, answer=UNSUPPORTED, mask=0xFF00)
    code += _call(IOCTL[column], [*_deny(1, TERMINAL), *of_files])
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


def _deny(argument: int, values: Collection[int], *, answer: int = DENY, mask: int = WORD) -> list[bytes]:
    """Answer *answer* when an argument, of 32 bits, is one of *values* under *mask*."""
    comparisons = [_op(EQUAL, value, len(values) - index + 1, 0) for index, value in enumerate(values)]
    # The number is loaded again for the rules that follow.
    rest = [_op(LOAD, NUMBER), _op(JUMP, 1), _op(RETURN, answer)]
    return [_argument(argument), _op(AND, mask), *comparisons, *rest]


def _unless(
    argument: int, values: Collection[int], *, otherwise: int = DENY, mask: int = WORD
) -> list[bytes]:
    """Answer *otherwise* unless an argument, of 32 bits, is one of *values* under *mask*."""
    comparisons = [_op(EQUAL, value, len(values) - index, 0) for index, value in enumerate(values)]
    return [_argument(argument), _op(AND, mask), *comparisons, _op(RETURN, otherwise), _op(LOAD, NUMBER)]


def _deny_negative(argument: int) -> list[bytes]:
    """Deny the call when an argument, of 32 bits, is below 0."""
    return [_argument(argument), _op(AT_LEAST, 1 << 31, 0, 1), _op(RETURN, DENY), _op(LOAD, NUMBER)]


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
