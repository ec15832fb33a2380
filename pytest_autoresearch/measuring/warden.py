"""The warden: a small process of its own that starts a run and leaves nothing of it alive.

It is run as a script, by a Python without its site, and so imports nothing of this package and little else:
every module here is paid for by the start of every run. It is told what to do through a pipe; when that
closes, which a pytest that is killed sees to as well, it ends the run with all its descendants.
"""

from __future__ import annotations

import ctypes
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
    from collections.abc import Callable
    from typing import NoReturn, TypedDict

    class Order(TypedDict):
        """What the warden is told; every number a descriptor that it has inherited."""

        command: list[str]
        environment: dict[str, str]
        descriptors: list[int]  # for the run
        stdio: list[int] | None  # its standard input, output and errors; None leaves it the warden's
        ruleset: int | None  # Landlock's
        system_calls: bytes | None  # a seccomp filter that forbids some


PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER = 1, 24, 36
PR_SET_SECCOMP, SECCOMP_MODE_FILTER, PR_SET_NO_NEW_PRIVS = 22, 2, 38
RESTRICT_SELF = 446  # Landlock's system call, of every architecture
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
        order: Order = marshal.load(pipe)  # noqa: S302
    awake = wake_up_on(signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if LINUX:
        prctl(PR_SET_CHILD_SUBREAPER, 1)  # whoever loses its parent becomes a child of ours
    run = os.fork()
    if run == 0:
        become(order)
    let_go(order)
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


def let_go(order: Order) -> None:
    """Close what is the run's, so that its end is seen when the run ends."""
    for descriptor in {*order["descriptors"], *(order["stdio"] or ())}:
        os.close(descriptor)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


# -- the run's side of the fork ---------------------------------------------------------------------------


def become(order: Order) -> NoReturn:
    """Turn this process into the run."""
    code, command = CANNOT_CONFINE, order["command"]
    try:
        if order["stdio"] is not None:
            redirect(order["stdio"])
        os.setsid()
        # Python ignores two of them, and whoever started pytest maybe the third; that would be inherited.
        for name in ("SIGPIPE", "SIGXFSZ", "SIGCHLD"):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
        if order["ruleset"] is not None:
            drop_capabilities()
        if LINUX:
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # if the warden itself is killed; it has one thread only
        if order["ruleset"] is not None:
            prctl(PR_SET_NO_NEW_PRIVS, 1)
            system_call(RESTRICT_SELF, order["ruleset"], 0)
            os.close(order["ruleset"])
        if order["system_calls"] is not None:
            forbid(order["system_calls"])
        code = CANNOT_EXECUTE
        os.execvpe(command[0], command, order["environment"])  # noqa: S606 - never through a shell
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(code)


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


def forbid(system_calls: bytes) -> None:
    """Put this process, and all that it starts, under a seccomp filter."""
    memory = ctypes.create_string_buffer(system_calls)
    program = struct.pack("HxxxxxxQ", len(system_calls) // 8, ctypes.addressof(memory))
    if LIBRARY.prctl(PR_SET_SECCOMP, ctypes.c_ulong(SECCOMP_MODE_FILTER), program, 0, 0):
        raise OSError(ctypes.get_errno(), "cannot install the seccomp filter")


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
