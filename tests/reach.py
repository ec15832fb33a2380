"""Every call that can act on another task, aimed at tasks outside the sandbox of this script.

    python reach.py FACTS

prints a JSON line for each attempt: the call, its arguments, and "done" or the name of an error. Each asks
for the present state or for nothing, and so does no harm if it succeeds. The exception is pinning to a single
processor, because only the target can tell whether it took place.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LIBRARY = ctypes.CDLL(None, use_errno=True)
PIN = "sched_setaffinity"
TGID = 1  # PIDTYPE_TGID
FILES = ("oom_score_adj", "comm", "timerslack_ns", "coredump_filter", "autogroup", "clear_refs", "mem")

Attempt = tuple[str, tuple[Any, ...]]


def calls(process: int, thread: int, group: int) -> Iterator[Attempt]:
    """Yield the name and the arguments of each call."""
    everything = ctypes.create_string_buffer(4096)
    queued = struct.pack("3i116x", signal.SIGURG, 0, -1)  # SI_QUEUE
    yield "kill", (-group, 0)
    yield "tgkill", (process, thread, 0)
    yield "tkill", (thread, 0)
    yield "rt_tgsigqueueinfo", (process, thread, signal.SIGURG, queued)
    yield "pidfd_open", (process, 0)
    yield "setpriority", (os.PRIO_PGRP, group, os.getpriority(os.PRIO_PROCESS, 0))
    yield "ioprio_set", (2, group, 2 << 13 | 4)
    yield "prctl", (62, 3, process, TGID, 0)  # PR_SCHED_CORE_SHARE_FROM
    yield "prctl", (62, 2, process, TGID, 0)  # PR_SCHED_CORE_SHARE_TO
    clock = ~process << 3 | 2  # CPUCLOCK_SCHED
    yield "timer_create", (clock, struct.pack("Qii48x", 0, signal.SIGURG, 0), everything)
    yield "clock_nanosleep", (clock, 1, struct.pack("qq", 0, 1), 0)  # until a time that is past
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    limits = struct.pack("qq", *resource.getrlimit(resource.RLIMIT_NOFILE))
    for task in (process, thread):
        yield "kill", (task, 0)
        yield "rt_sigqueueinfo", (task, signal.SIGURG, queued)
        yield "prlimit64", (task, resource.RLIMIT_NOFILE, limits, 0)
        yield "setpriority", (os.PRIO_PROCESS, task, nice)
        yield "ioprio_set", (1, task, 2 << 13 | 4)
        yield PIN, (task, 128, struct.pack("Q120x", 1 << min(os.sched_getaffinity(0))))
        yield "sched_setscheduler", (task, os.SCHED_OTHER, struct.pack("i", 0))
        yield "sched_setparam", (task, struct.pack("i", 0))
        yield "sched_setattr", (task, struct.pack("IIQi28x", 48, os.SCHED_OTHER, 0, nice), 0)
        yield "ptrace", (0x4206, task, 0, 0)  # PTRACE_SEIZE
        yield "process_vm_readv", (task, 0, 0, 0, 0, 0)
        yield "process_vm_writev", (task, 0, 0, 0, 0, 0)
        yield "kcmp", (task, task, 0, 0, 0)
        yield "migrate_pages", (task, 64, struct.pack("Q", 1), struct.pack("Q", 1))
        yield "move_pages", (task, 0, 0, 0, 0, 0)
        yield "perf_event_open", (struct.pack("II120x", 1, 128), task, -1, -1, 0)
        yield "get_robust_list", (task, everything, ctypes.create_string_buffer(8))


def by_files(process: int, thread: int, group: int) -> Iterator[Attempt]:
    """Yield the calls that would direct a file's signals, or that need a descriptor of /proc."""
    one, _other = socket.socketpair()
    owned = one.detach()
    for owner in (process, -group):
        yield "fcntl", (owned, 8, owner)  # F_SETOWN
        yield "ioctl", (owned, 0x8901, struct.pack("i", owner))  # FIOSETOWN
        yield "ioctl", (owned, 0x8902, struct.pack("i", owner))  # SIOCSPGRP
    for kind, owner in enumerate((thread, process, group)):
        yield "fcntl", (owned, 15, struct.pack("ii", kind, owner))  # F_SETOWN_EX
    yield "fcntl", (owned, 10, signal.SIGURG)  # F_SETSIG
    yield "fcntl", (os.open("own", os.O_RDONLY | os.O_CREAT), 1024, 0)  # F_SETLEASE, F_RDLCK
    folder = Path(f"/proc/{process}")
    if folder.exists():
        yield "pidfd_send_signal", (os.open(folder, os.O_RDONLY), 0, 0, 0)


def outcome(number: int, arguments: tuple[Any, ...]) -> str:
    """Make a system call, and return "done" or the name of the error."""
    words = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    if LIBRARY.syscall(ctypes.c_long(number), *words) >= 0:
        return "done"
    return errno.errorcode[ctypes.get_errno()]


def opening(path: str) -> str:
    """Open a file for writing, and return "done" or the name of the error."""
    try:
        os.close(os.open(path, os.O_WRONLY))
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "done"


def main() -> None:
    """Make all attempts."""
    facts = json.loads(sys.argv[1])
    for target, (process, thread, group) in facts["targets"].items():
        aim = (process, thread, group) if process else (os.getppid(),) * 3
        for name, arguments in (*calls(*aim), *by_files(*aim)):
            shown = ", ".join(str(value if isinstance(value, int) else "...") for value in arguments)
            result = outcome(facts["numbers"][name], arguments)
            print(json.dumps([name, f"({shown}) at {target}", result]), flush=True)
        for path in (*(f"/proc/{aim[0]}/{name}" for name in FILES), f"/proc/{aim[0]}/task/{aim[1]}/comm"):
            print(json.dumps(["write", f"{path} of {target}", opening(path)]), flush=True)


if __name__ == "__main__":
    main()
