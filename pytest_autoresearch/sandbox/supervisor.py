"""The warden: a small process of its own that starts a run and leaves nothing of it alive.

It is run as a script, by a Python without its site, and so imports nothing of this package and little else:
every module here is paid for by the start of every run. It is told what to do through a pipe; when that
closes, which a pytest that is killed sees to as well, it ends the run with all its descendants.
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
    from collections.abc import Callable
    from typing import NoReturn, TypedDict

    class LaunchRequest(TypedDict):
        """What the warden is told; every number a descriptor that it has inherited."""

        command: list[str]
        environment: dict[str, str]
        descriptors: list[int]  # for the run
        open_files: int | None  # that each of its processes may have at most; None leaves it at that
        stdio: list[int] | None  # its standard input, output and errors; None leaves it the warden's
        ruleset: int | None  # Landlock's
        names_threads: bool  # whether it may write to its own /proc/self/task then, and to its threads' names
        system_calls: bytes | None  # a seccomp filter that forbids some
        asks: dict[str, int] | None  # if that asks about signals: the numbers of seccomp and kill


PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER = 1, 24, 36
PR_SET_SECCOMP, SECCOMP_MODE_FILTER, PR_SET_NO_NEW_PRIVS = 22, 2, 38
SET_MODE_FILTER, NEW_LISTENER = 1, 8  # an operation of seccomp, and its flag
RECEIVE, SEND = 0xC0502100, 0xC0182101  # to a listener: SECCOMP_IOCTL_NOTIF_RECV, SECCOMP_IOCTL_NOTIF_SEND
# struct seccomp_notif: who asks, by what call, and its first two arguments; struct seccomp_notif_resp.
QUESTION, ANSWER = struct.Struct("=QI4xi4x8xi4xi4x32x"), struct.Struct("=QqiI")
CONTINUE = 1  # the flag of an answer that leaves the call to the kernel
ADD_RULE, RESTRICT_SELF = 445, 446  # Landlock's system calls, of every architecture
PATH_BENEATH, WRITE_FILE, TRUNCATE = 1, 1 << 1, 1 << 14  # a kind of its rules, and two rights
CLONE_NEWNET = 0x40000000
CAPABILITIES = 64  # more than there are
CAPABILITY_VERSION = 0x20080522
CANNOT_CONFINE, CANNOT_EXECUTE = 126, 127
LOOK_UP = 1.0  # seconds between looks whether the parent is still there
PAUSE = 0.002  # seconds that the killed get before the next look
LINUX = sys.platform == "linux"


def main(control: int) -> int:
    """Obey the order that comes through *control*; return the run's exit code, 128 + N for a signal."""
    parent = os.getppid()
    os.set_inheritable(control, False)
    with open(control, "rb", closefd=False) as pipe:
        # Written by our own parent. json takes longer to import than everything else here together.
        order: LaunchRequest = marshal.load(pipe)  # noqa: S302
    awake = wake_up_on(signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if LINUX:
        prctl(PR_SET_CHILD_SUBREAPER, 1)  # whoever loses its parent becomes a child of ours
    ours, theirs = connected() if order["asks"] else (None, None)
    run = os.fork()
    if run == 0:
        become(order, theirs)
    if order["ruleset"] is not None and order["names_threads"]:
        # Held open to the end: else the kernel, short of memory, forgets the folder of allow_naming's rule.
        os.open(f"/proc/{run}/task", os.O_PATH)
    let_go(order)
    if ours and theirs and order["asks"]:
        theirs.close()
        _thread.start_new_thread(answer_all, (ours, order["asks"]["kill"]))
    ended: dict[int, int] = {}
    while run not in ended and os.getppid() == parent:
        ready, _, _ = select.select([control, awake], [], [], LOOK_UP)
        if control in ready or (awake in ready and set(os.read(awake, 1024)) != {signal.SIGCHLD}):
            break
        reap(ended)
    end_all(run, ended)
    code = os.waitstatus_to_exitcode(ended[run]) if run in ended else -signal.SIGKILL
    return code if code >= 0 else 128 - code


def wake_up_on(*numbers: int) -> int:
    """Return a descriptor from which the numbers of the signals that arrive can be read."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in numbers:
        signal.signal(number, lambda *_: None)
    return reader


def let_go(order: LaunchRequest) -> None:
    """Close what is the run's, so that its end is seen when the run ends."""
    for descriptor in {*order["descriptors"], *(order["stdio"] or ())}:
        os.close(descriptor)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


# -- the run's side of the fork ---------------------------------------------------------------------------


def become(order: LaunchRequest, warden: socket.socket | None) -> NoReturn:
    """Turn this process into the run; the *warden* gets what the filter asks by, if it asks."""
    code, command = CANNOT_CONFINE, order["command"]
    try:
        if order["stdio"] is not None:
            redirect(order["stdio"])
        os.setsid()
        # Python ignores two of them, and whoever started pytest maybe the third; that would be inherited.
        for name in ("SIGPIPE", "SIGXFSZ", "SIGCHLD"):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
        if order["ruleset"] is not None:
            if order["names_threads"]:
                # Else root could write to the network's files in /proc/self/task/TID/net. It fails for other
                # users, who own none of them, and in a container without CAP_SYS_ADMIN, where root could.
                LIBRARY.unshare(CLONE_NEWNET)
            drop_capabilities()
        if LINUX:
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # if the warden itself, its first thread, is killed
            for limit in (resource.RLIMIT_RTPRIO, resource.RLIMIT_NICE):  # or it might go before all others
                resource.setrlimit(limit, (0, 0))
        if order["open_files"] is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (order["open_files"],) * 2)
        confine(order, warden)
        code = CANNOT_EXECUTE
        os.execvpe(command[0], command, order["environment"])  # noqa: S606 - never through a shell
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(code)


def confine(order: LaunchRequest, warden: socket.socket | None) -> None:
    """Enter what Landlock and seccomp enforce."""
    if order["ruleset"] is not None:
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        if order["names_threads"]:
            allow_naming(order["ruleset"])
        system_call(RESTRICT_SELF, order["ruleset"], 0)
        os.close(order["ruleset"])
    if order["system_calls"] is not None:
        listener = forbid(order["system_calls"], order["asks"])
        if warden:
            import socket

            socket.send_fds(warden, [b"."], [listener])


def allow_naming(ruleset: int) -> None:
    """Let this process name its threads: CUDA's driver does, and without a name it does not start.

    A rule holds for a folder that exists, and /proc/self is another one for each process. So children cannot.
    """
    folder = os.open("/proc/self/task", os.O_PATH | os.O_CLOEXEC)
    rule = ctypes.create_string_buffer(struct.pack("=Qi", WRITE_FILE | TRUNCATE, folder))
    system_call(ADD_RULE, ruleset, PATH_BENEATH, ctypes.addressof(rule), 0)
    os.close(folder)


def redirect(stdio: list[int]) -> None:
    """Make the three descriptors this process's standard input, output and errors."""
    for number, descriptor in enumerate(stdio):
        os.dup2(descriptor, number)
    for descriptor in set(stdio):
        os.close(descriptor)


def drop_capabilities() -> None:
    """Give up every capability, for this process and all that it may execute."""
    for capability in range(CAPABILITIES):
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError:
            break  # there are no more of them, or an ordinary user who has none to drop
    header, nothing = struct.pack("=Ii", CAPABILITY_VERSION, 0), bytes(24)
    if LIBRARY.capset(header, nothing):
        raise OSError(ctypes.get_errno(), "cannot drop capabilities")


def forbid(system_calls: bytes, asks: dict[str, int] | None) -> int:
    """Put this process, and all that it starts, under a seccomp filter; return its listener if it *asks*."""
    memory = ctypes.create_string_buffer(system_calls)
    program = struct.pack("HxxxxxxQ", len(system_calls) // 8, ctypes.addressof(memory))
    if asks:
        words = (asks["seccomp"], SET_MODE_FILTER, NEW_LISTENER)
        result = int(LIBRARY.syscall(*map(ctypes.c_long, words), program))
    else:
        result = int(LIBRARY.prctl(PR_SET_SECCOMP, ctypes.c_ulong(SECCOMP_MODE_FILTER), program, 0, 0))
    if result < 0:
        raise OSError(ctypes.get_errno(), "cannot install the seccomp filter")
    return result


# -- signals within the run, where the kernel lets it signal all of the user's processes ---------------------


def connected() -> tuple[socket.socket, socket.socket]:
    """Return two sockets, for a run to send its listener to the warden."""
    import socket  # it takes long to import, and newer kernels need none of this

    return socket.socketpair()


def answer_all(ours: socket.socket, kill: int) -> None:
    """Receive the listener, and answer what the filter asks; a thread that ends with this process."""
    import socket

    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they would interrupt an answer
    _, listeners, _, _ = socket.recv_fds(ours, 1, 1)
    while listeners:  # none comes of a run that could not be confined
        question = bytearray(QUESTION.size)
        try:
            fcntl.ioctl(listeners[0], RECEIVE, question)
            fcntl.ioctl(listeners[0], SEND, answer(question, kill))
        except OSError:
            pass  # whoever has asked was killed meanwhile


def answer(question: bytearray, kill: int) -> bytes:
    """Let a process of the run signal itself, and signal another one of the run for it."""
    identity, thread, call, target, number = QUESTION.unpack(question)
    if target == status(thread, "Tgid:"):
        return ANSWER.pack(identity, 0, 0, CONTINUE)
    refusal = signal_of_run(target, number) if call == kill else errno.EPERM
    return ANSWER.pack(identity, 0, -refusal, 0)


def signal_of_run(target: int, number: int) -> int:
    """Send a signal to a process of the run, or to those in the group *-target*; return 0 or an error."""
    result = errno.ESRCH  # for the run there is nobody else
    for process in [target] if target > 0 else descendants():
        try:
            # If the process ends and its number becomes another's, what is sent through this reaches nobody.
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
    """Return whether the warden is among the parents of a process, and theirs."""
    while process := status(process, "PPid:"):
        if process == os.getpid():
            return True
    return False


def status(process: int, name: str) -> int:
    """Return a number that the kernel tells of a process or a thread, 0 when that has ended."""
    try:
        with open(f"/proc/{process}/status", encoding="utf-8", errors="replace") as lines:  # noqa: PTH123
            return next((int(line.split()[1]) for line in lines if line.startswith(name)), 0)
    except OSError:
        return 0


# -- the end ----------------------------------------------------------------------------------------------


def end_all(run: int, ended: dict[int, int]) -> None:
    """Kill every descendant until none is left."""
    if not LINUX:
        signal_each([-run], signal.SIGKILL)  # orphans of its process group are no descendants of ours
    while reap(ended):
        stopped: set[int] = set()
        while new := set(descendants()) - stopped:  # stopped first, or they would fork on while we kill
            signal_each(new, signal.SIGSTOP)
            stopped |= new
        if stopped and not signal_each(stopped, signal.SIGKILL):
            return  # what is left became another user's, through a setuid program
        time.sleep(PAUSE)


def reap(ended: dict[int, int]) -> bool:
    """Note the exit status of every child that has ended; return whether any child is left."""
    while True:
        try:
            child, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if child == 0:
            return True
        ended[child] = status


def signal_each(processes: set[int] | list[int], number: int) -> bool:
    """Send a signal; return whether it was permitted at all."""
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
    """Return the process ids of all children and theirs; one that is just being born may be missing."""
    family = [os.getpid()]
    listed = os.path.exists(f"/proc/self/task/{family[0]}/children")  # noqa: PTH110 - pathlib is slow to import
    find = listed_children if listed else children_by_ps()
    for process in family:
        family += find(process)
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


def children_by_ps() -> Callable[[int], list[int]]:
    """Return what gives the children of a process where the kernel does not list them."""
    table = [line.split() for line in os.popen("ps -A -o pid= -o ppid=")]  # noqa: S605 - no word of it is foreign
    return lambda process: [int(child) for child, parent in table if int(parent) == process]


# -- what the standard library does not offer ---------------------------------------------------------------

LIBRARY = ctypes.CDLL(None, use_errno=True)


def prctl(option: int, value: int) -> None:
    """Set an attribute of this process.

    Raises:
        OSError: the kernel refuses.
    """
    if LIBRARY.prctl(option, *(ctypes.c_ulong(word) for word in (value, 0, 0, 0))):
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")


def system_call(number: int, *arguments: int) -> None:
    """Make a system call that returns nothing.

    Raises:
        OSError: it failed.
    """
    if LIBRARY.syscall(*(ctypes.c_long(word) for word in (number, *arguments))):
        raise OSError(ctypes.get_errno(), f"system call {number} failed")


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
