"""The system calls by which a process could reach others, and their numbers.

docs/system-calls.md lists all that can name another task, up to Linux 6.18, with what is done and why.
"""

from __future__ import annotations

import platform
import re
import sys

ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # its column, its AUDIT_ARCH
NEWEST = 463  # the first call that came after this list; no program needs a call this new


def _table(text: str) -> dict[str, tuple[int | None, ...]]:
    """Return the calls in *text* by name: their numbers on x86_64 and on aarch64, - where there is none."""
    words = re.sub("#.*", "", text).split()
    rows = zip(words[::3], words[1::3], words[2::3], strict=True)
    return {name: tuple(None if word == "-" else int(word) for word in numbers) for name, *numbers in rows}


# Neither an allow-list of paths nor a namespace governs these.
FORBIDDEN = _table("""
    # other tasks
    ptrace 101 117                 process_vm_readv 310 270       process_vm_writev 311 271
    process_madvise 440 440        process_mrelease 448 448       kcmp 312 272
    pidfd_open 434 434             pidfd_getfd 438 438            pidfd_send_signal 424 424
    tkill 200 130                  get_robust_list 274 100        migrate_pages 256 238
    move_pages 279 239
    # what outlives a run, or is shared with the next one
    shmget 29 194                  shmat 30 196                   shmctl 31 195
    semget 64 190                  semop 65 193                   semtimedop 220 192
    semctl 66 191                  msgget 68 186                  msgsnd 69 189
    msgrcv 70 188                  msgctl 71 187                  mq_open 240 180
    mq_unlink 241 181              add_key 248 217                request_key 249 218
    keyctl 250 219
    # ways round this filter, and the kernel's largest attack surfaces
    io_uring_setup 425 425         io_uring_enter 426 426         io_uring_register 427 427
    bpf 321 280                    perf_event_open 298 241        userfaultfd 323 282
    io_setup 206 0                 modify_ldt 154 -
    # another view of the file system
    unshare 272 97                 setns 308 268                  chroot 161 51
    pivot_root 155 41              mount 165 40                   umount2 166 39
    move_mount 429 429             open_tree 428 428              fsopen 430 430
    fsconfig 431 431               fsmount 432 432                fspick 433 433
    mount_setattr 442 442          statmount 457 457              listmount 458 458
    name_to_handle_at 303 264      open_by_handle_at 304 265      fanotify_init 300 262
    quotactl 179 60                quotactl_fd 443 443            lookup_dcookie 212 18
    nfsservctl 180 42
    # the machine: its clock above all
    settimeofday 164 170           clock_settime 227 112          clock_adjtime 305 266
    adjtimex 159 171               sethostname 170 161            setdomainname 171 162
    init_module 175 105            finit_module 313 273           delete_module 176 106
    kexec_load 246 104             kexec_file_load 320 294        reboot 169 142
    swapon 167 224                 swapoff 168 225                acct 163 89
    syslog 103 116                 vhangup 153 58                 iopl 172 -
    ioperm 173 -
""")

# Landlock does not govern attributes of files, so with the user's uid a run could change those of any of the
# user's files. Seals do not cover them either: a run could leave a message in those of the data that it is
# handed for the next run. Refusal would break `shutil.copy`, so the calls succeed without effect.
ATTRIBUTES = _table("""
    chmod 90 -                     fchmod 91 52                   fchmodat 268 53
    fchmodat2 452 452              chown 92 -                     lchown 94 -
    fchown 93 55                   fchownat 260 54                setxattr 188 5
    lsetxattr 189 6                fsetxattr 190 7                removexattr 197 14
    lremovexattr 198 15            fremovexattr 199 16            utime 132 -
    utimes 235 -                   futimesat 261 -                utimensat 280 88
""")

# These tell about others or slow them down. An honest run does not need them; an agent's programs may.
NOT_FOR_RUNS = _table("""
    # which files, and which parts of them, somebody has read
    mincore 27 232                 cachestat 451 451              inotify_init 253 -
    inotify_init1 294 26           inotify_add_watch 254 27
    # these fire while a run is stopped, any number of times per process
    timer_create 222 107           timerfd_create 283 85          signalfd 282 -
    signalfd4 289 74
""")

# Calls that act on the caller or on another task: the argument values that mean the caller.
ON_SELF = {
    "prlimit64": {0: 0},
    "sched_setscheduler": {0: 0},
    "sched_setparam": {0: 0},
    "sched_setattr": {0: 0},
    "setpriority": {0: 0, 1: 0},  # PRIO_PROCESS
    "ioprio_set": {0: 1, 1: 0},  # IOPRIO_WHO_PROCESS
}
SIGNALS = _table("kill 62 129    tgkill 234 131    rt_sigqueueinfo 129 138    rt_tgsigqueueinfo 297 240")

# Their arguments decide, or the supervisor makes them.
CONDITIONAL = _table("""
    prlimit64 302 261              sched_setscheduler 144 119     sched_setparam 142 118
    sched_setattr 314 274          setpriority 141 140            ioprio_set 251 30
    sched_setaffinity 203 122      clock_nanosleep 230 115        clone 56 220
    clone3 435 435                 socket 41 198                  socketpair 53 199
    fcntl 72 25                    ioctl 16 29                    prctl 157 167
    rt_sigaction 13 134            fadvise64 221 223              madvise 28 233
    preadv2 327 286                pwritev2 328 287               seccomp 317 277
""")

NUMBERS = FORBIDDEN | ATTRIBUTES | NOT_FOR_RUNS | SIGNALS | CONDITIONAL


def supported() -> bool:
    """Return whether the numbers of this machine's system calls are known here."""
    # A 32-bit Python on a 64-bit kernel makes the calls of another architecture.
    return sys.platform == "linux" and sys.maxsize > 1 << 32 and platform.machine() in ARCHITECTURES


def exists(name: str) -> bool:
    """Return whether this machine's architecture has the call."""
    return NUMBERS[name][ARCHITECTURES[platform.machine()][0]] is not None


def number(name: str) -> int:
    """Return the number of a system call on this machine's architecture, which has to have it."""
    found = NUMBERS[name][ARCHITECTURES[platform.machine()][0]]
    assert found is not None, f"{name} does not exist on {platform.machine()}"
    return found
