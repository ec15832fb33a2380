"""The supervisor: a small process of its own that starts a run and kills all of its process tree at the end.

It is executed as a script by a Python without its site. It imports nothing of this package and few modules,
because every start of a run waits for the imports. It reads its request from a pipe. When that pipe closes,
also because pytest was killed, it ends the run with all its descendants.
"""

from __future__ import annotations

import _thread
import ctypes
import errno
import fcntl
import marshal
import os
import resource
import select
import signal
import struct
import sys
import time

TYPE_CHECKING = False  # typing takes half as long to import as Python to start
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable
    from typing import NoReturn, TypedDict

    class LaunchRequest(TypedDict):
        """What to start, and how; file descriptors are those that the supervisor has inherited."""

        command: list[str]
        environment: dict[str, str]
        descriptors: list[int]  # for the run
        open_files: int | None  # how many each of its processes may have open; None leaves the limit
        stdio: list[int]  # its standard input, output and error; none leaves the supervisor's
        ruleset: int | None  # Landlock's
        names_threads: bool  # whether it may name its threads in /proc/self/task under Landlock
        system_calls: bytes | None  # a seccomp filter
        listens: dict[str, int] | None  # if the filter asks about signals: the numbers of seccomp and kill


PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER = 1, 24, 36
PR_SET_SECCOMP, SECCOMP_MODE_FILTER, PR_SET_NO_NEW_PRIVS = 22, 2, 38
SET_MODE_FILTER, NEW_LISTENER = 1, 8  # an operation of seccomp, and its flag
RECEIVE, SEND = 0xC0502100, 0xC0182101  # SECCOMP_IOCTL_NOTIF_RECV, SECCOMP_IOCTL_NOTIF_SEND
# struct seccomp_notif: id, thread, call and its first two arguments; struct seccomp_notif_resp.
QUESTION, ANSWER = struct.Struct("=QI4xi4x8xi4xi4x32x"), struct.Struct("=QqiI")
CONTINUE = 1  # the flag of an answer that leaves the call to the kernel
ADD_RULE, RESTRICT_SELF = 445, 446  # Landlock's system calls, the same on every architecture
PATH_BENEATH, WRITE_FILE, TRUNCATE = 1, 1 << 1, 1 << 14  # a kind of its rules, and two rights
CLONE_NEWNET = 0x40000000
CAPABILITIES = 64  # more than exist
CAPABILITY_VERSION = 0x20080522
CANNOT_CONFINE, CANNOT_EXECUTE = 126, 127  # exit codes
PARENT_INTERVAL = 1.0  # seconds between checks that the parent is alive
KILL_INTERVAL = 0.002  # seconds between killing and the next look
LINUX = sys.platform == "linux"
LIBRARY = ctypes.CDLL(None, use_errno=True)


def main(control: int) -> int:
    """Execute the request that comes through *control*; return the exit code, 128 + N for a signal N."""
    parent = os.getppid()
    os.set_inheritable(control, False)
    with open(control, "rb", closefd=False) as pipe:
        # Written by our own parent. json takes longer to import than everything else here together.
        request: LaunchRequest = marshal.load(pipe)  # noqa: S302
    signals = wakeup_descriptor(signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if LINUX:
        call(LIBRARY.prctl, PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # orphans become children of this process
    ours = theirs = None
    if request["listens"]:
        import socket  # slow to import, and newer kernels do not need it

        ours, theirs = socket.socketpair()
    run = os.fork()
    if run == 0:
        become(request, theirs)
    if request["ruleset"] is not None and request["names_threads"]:
        # Stays open: else the kernel, short of memory, may forget the folder, and with it the rule on it.
        os.open(f"/proc/{run}/task", os.O_PATH)
    close_for_run(request)
    if ours and theirs and request["listens"]:
        theirs.close()
        _thread.start_new_thread(answer_all, (ours, request["listens"]["kill"]))
    ended: dict[int, int] = {}
    while run not in ended and os.getppid() == parent:
        ready, _, _ = select.select([control, signals], [], [], PARENT_INTERVAL)
        if control in ready or (signals in ready and set(os.read(signals, 1024)) != {signal.SIGCHLD}):
            break
        reap(ended)
    end_all(run, ended)
    code = os.waitstatus_to_exitcode(ended[run]) if run in ended else -signal.SIGKILL
    return code if code >= 0 else 128 - code


def wakeup_descriptor(*numbers: int) -> int:
    """Return a descriptor from which the numbers of arriving signals can be read."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in numbers:
        signal.signal(number, lambda *_: None)
    return reader


def close_for_run(request: LaunchRequest) -> None:
    """Close what only the run should hold, so that its readers see when the run closes it."""
    for descriptor in {*request["descriptors"], *request["stdio"]}:
        os.close(descriptor)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


# -- in the child, before it executes the command -------------------------------------------------


def become(request: LaunchRequest, supervisor: socket.socket | None) -> NoReturn:
    """Turn this process into the run; the filter's listener, if there is one, goes to *supervisor*."""
    code, command = CANNOT_CONFINE, request["command"]
    try:
        for number, descriptor in enumerate(request["stdio"]):
            os.dup2(descriptor, number)
        for descriptor in set(request["stdio"]):
            os.close(descriptor)
        os.setsid()
        # Python ignores the first two, and pytest's parent maybe the third; ignored signals are inherited.
        for name in ("SIGPIPE", "SIGXFSZ", "SIGCHLD"):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
        if request["ruleset"] is not None:
            if request["names_threads"]:
                # Else root could write to the network's files in /proc/self/task/TID/net. It fails for other
                # users, who own none of them, and in a container without CAP_SYS_ADMIN, where root could.
                LIBRARY.unshare(CLONE_NEWNET)
            drop_capabilities()
        if LINUX:
            # If the first thread of the supervisor is killed.
            call(LIBRARY.prctl, PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            for limit in (resource.RLIMIT_RTPRIO, resource.RLIMIT_NICE):  # or it could starve all others
                resource.setrlimit(limit, (0, 0))
        if request["open_files"] is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (request["open_files"],) * 2)
        confine(request, supervisor)
        code = CANNOT_EXECUTE
        os.execvpe(command[0], command, request["environment"])  # noqa: S606 - never through a shell
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(code)


def confine(request: LaunchRequest, supervisor: socket.socket | None) -> None:
    """Enter the Landlock ruleset and the seccomp filter of the request."""
    if request["ruleset"] is not None:
        call(LIBRARY.prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if request["names_threads"]:
            # CUDA's driver does not start otherwise. A rule holds for an existing folder, and /proc/self
            # differs for each process: its children cannot name theirs.
            allow(request["ruleset"], "/proc/self/task", WRITE_FILE | TRUNCATE)
        call(LIBRARY.syscall, RESTRICT_SELF, request["ruleset"], 0)
        os.close(request["ruleset"])
    if request["system_calls"] is not None:
        memory = ctypes.create_string_buffer(request["system_calls"])
        program = struct.pack("HxxxxxxQ", len(request["system_calls"]) // 8, ctypes.addressof(memory))
        if supervisor and request["listens"]:
            import socket

            seccomp = request["listens"]["seccomp"]
            listener = call(LIBRARY.syscall, seccomp, SET_MODE_FILTER, NEW_LISTENER, program)
            socket.send_fds(supervisor, [b"."], [listener])
        else:
            call(LIBRARY.prctl, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0)


def allow(ruleset: int, path: str | os.PathLike[str], rights: int) -> None:
    """Add *rights* on a path, no link, to a Landlock ruleset."""
    opened = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        call(LIBRARY.syscall, ADD_RULE, ruleset, PATH_BENEATH, struct.pack("=Qi", rights, opened), 0)
    finally:
        os.close(opened)


def drop_capabilities() -> None:
    """Give up every capability, for this process and all that it executes."""
    for capability in range(CAPABILITIES):
        try:
            call(LIBRARY.prctl, PR_CAPBSET_DROP, capability, 0, 0, 0)
        except OSError:
            break  # no more capabilities exist, or an ordinary user has none to drop
    header, nothing = struct.pack("=Ii", CAPABILITY_VERSION, 0), bytes(24)
    call(LIBRARY.capset, header, nothing)


# -- signals within the run, where the kernel cannot confine them (before Linux 6.12) -------------


def answer_all(ours: socket.socket, kill: int) -> None:
    """Receive the listener, and answer what the filter asks; a thread that ends with this process."""
    import socket

    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they would interrupt an answer
    _, listeners, _, _ = socket.recv_fds(ours, 1, 1)
    while listeners:  # there is none if the run could not be confined
        question = bytearray(QUESTION.size)
        try:
            fcntl.ioctl(listeners[0], RECEIVE, question)
            fcntl.ioctl(listeners[0], SEND, answer(question, kill))
        except OSError:
            pass  # the asking process was killed meanwhile


def answer(question: bytearray, kill: int) -> bytes:
    """Let a process of the run signal itself, and send its signals to other processes of the run."""
    identity, thread, call, target, number = QUESTION.unpack(question)
    if target == status(thread, "Tgid:"):
        return ANSWER.pack(identity, 0, 0, CONTINUE)
    refusal = signal_of_run(target, number) if call == kill else errno.EPERM
    return ANSWER.pack(identity, 0, -refusal, 0)


def signal_of_run(target: int, number: int) -> int:
    """Send a signal to a process of the run, or to those in the group *-target*; return 0 or an error."""
    result = errno.ESRCH  # as if no process existed outside the run
    for process in [target] if target > 0 else descendants():
        try:
            # If the process ends and its number is used again, a signal through this reaches no process.
            descriptor = os.pidfd_open(process)
        except OSError:
            continue  # it has ended, or is a thread
        try:
            if is_of_run(process) and (target > 0 or os.getpgid(process) == -target):
                signal.pidfd_send_signal(descriptor, number)
                result = 0
        except OSError as error:
            result = error.errno or result
        finally:
            os.close(descriptor)
    return result


def is_of_run(process: int) -> bool:
    """Return whether a process is a descendant of the supervisor."""
    while process := status(process, "PPid:"):
        if process == os.getpid():
            return True
    return False


def status(process: int, name: str) -> int:
    """Return a number from the kernel's status of a process or thread, 0 if that has ended."""
    try:
        with open(f"/proc/{process}/status", encoding="utf-8", errors="replace") as lines:  # noqa: PTH123
            return next((int(line.split()[1]) for line in lines if line.startswith(name)), 0)
    except OSError:
        return 0


def end_all(run: int, ended: dict[int, int]) -> None:
    """Kill every descendant until none is left."""
    if not LINUX:
        signal_each([-run], signal.SIGKILL)  # there orphans of its process group are no descendants of ours
    while reap(ended):
        stopped: set[int] = set()
        while new := set(descendants()) - stopped:  # stopped first, or they would keep forking
            signal_each(new, signal.SIGSTOP)
            stopped |= new
        if stopped and not signal_each(stopped, signal.SIGKILL):
            return  # the rest became another user's, through a setuid program
        time.sleep(KILL_INTERVAL)


def reap(ended: dict[int, int]) -> bool:
    """Add the exit status of every child that has ended to *ended*; return whether any child is left."""
    while True:
        try:
            child, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if child == 0:
            return True
        ended[child] = status


def signal_each(processes: Iterable[int], number: int) -> bool:
    """Send a signal to each process; return whether it was permitted for any of them."""
    permitted = False
    for process in processes:
        try:
            os.kill(process, number)
            permitted = True
        except ProcessLookupError:
            permitted = True
        except PermissionError:
            pass
    return permitted


def descendants() -> list[int]:
    """Return the process ids of all descendants; one that is just being born may be missing."""
    family = [os.getpid()]
    if os.path.exists(f"/proc/self/task/{family[0]}/children"):  # noqa: PTH110 - pathlib is slow to import
        for process in family:
            family += listed_children(process)
    else:  # the kernel lists no children
        table = [line.split() for line in os.popen("ps -A -o pid= -o ppid=")]  # noqa: S605 - a constant
        for process in family:
            family += [int(child) for child, parent in table if int(parent) == process]
    return family[1:]


def listed_children(process: int) -> list[int]:
    """Return the children of a process as the kernel lists them."""
    found = []
    try:
        for thread in os.listdir(f"/proc/{process}/task"):  # noqa: PTH208 - pathlib is slow to import
            with open(f"/proc/{process}/task/{thread}/children", "rb") as children:  # noqa: PTH123
                found += [int(child) for child in children.read().split()]
    except (FileNotFoundError, ProcessLookupError):
        pass  # it has ended
    return found


def call(function: Callable[..., int], *arguments: int | bytes) -> int:
    """Call a function of the C library, with words for integers; raise OSError for a negative result."""
    result = function(*(ctypes.c_long(item) if isinstance(item, int) else item for item in arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{function.__name__}: {os.strerror(ctypes.get_errno())}")
    return result


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
