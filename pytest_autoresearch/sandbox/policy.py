"""What a sandboxed process may read and write: one allow-list of paths, the same for every enforcer."""

from __future__ import annotations

import dataclasses
import os
import site
import sys
import sysconfig
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Literal

from pytest_autoresearch.sandbox import gpus

Enforcer = Literal["bwrap", "landlock", "none"]

PACKAGE = Path(__file__).resolve().parents[1]
MAX_LINKS = 40  # symbolic links that the kernel follows in one path

# The system's programs and libraries, and the files that they read: no key, home, socket or log.
PROGRAMS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store", "/opt/rocm")
SYSTEM_FILES = (
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
# An agent also needs host names, certificates, and programs that no run needs.
AGENT_FILES = (
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
# Of a virtual environment only these: it may have been made in the root of a repository.
ENVIRONMENT_FILES = ("bin", "lib", "lib64", "include", "share", "etc", "pyvenv.cfg")


@dataclasses.dataclass(frozen=True, slots=True)
class Policy:
    """What a process may use besides the system and the interpreter; the innermost listed path decides."""

    folder: Path
    """Its own folder, writable, and its working directory."""
    readable: tuple[Path, ...] = ()
    """Files and folders, read-only, at their own paths."""
    hidden: tuple[Path, ...] = ()
    """Never readable, even below a readable path."""
    writable: tuple[Path, ...] = ()
    """Other folders that it may change; none for a run."""
    work: Path | None = None
    """The working directory, if it is another one within the folder."""
    agent: bool = False
    """True for an agent, which has the network and no accelerator; False for a run."""

    def resolved(self) -> ResolvedPolicy:
        """Return the policy with the paths of the system and the interpreter added.

        Raises:
            ValueError: a hidden path lies in the writable folder.
        """
        folder = self.folder.resolve(strict=True)
        hidden = frozenset(path.resolve() for path in self.hidden if path.exists())
        if within := [path for path in hidden if path == folder or folder in path.parents]:
            raise ValueError(f"{within[0]} cannot be hidden in {folder}, which is the run's own")
        writable = frozenset(path.resolve() for path in self.writable if path.exists()) - hidden
        files = AGENT_FILES if self.agent else gpus.LIBRARY_FILES if gpus.nodes({}) else ()
        system = map(Path, (*PROGRAMS, *SYSTEM_FILES, *files))
        granted = (*system, *_interpreter(), *self.readable, *self.writable)
        named = {Path(os.path.abspath(path)) for path in granted}  # noqa: PTH100 - links stay
        real = {path: path.resolve() for path in named if path.exists()}
        listed = frozenset(real.values()) - hidden - writable - {folder, Path("/")}
        marked = listed | hidden | writable
        readable = frozenset(path for path in listed if _nearest(path, marked) not in listed)
        links = {
            path: target
            for path, target in real.items()
            # A link inside a readable folder exists there already.
            if path != target
            and target in listed | writable
            and _nearest(path, readable | writable | hidden) not in readable | writable
        }
        work = folder if self.work is None else self.work.resolve(strict=True)
        return ResolvedPolicy(folder, work, readable, writable, hidden, links, self.agent)


@dataclasses.dataclass(frozen=True, slots=True)
class ResolvedPolicy:
    """A policy on this machine, every path a real one."""

    folder: Path
    work: Path
    readable: frozenset[Path]
    writable: frozenset[Path]
    hidden: frozenset[Path]
    links: Mapping[Path, Path]
    """The real path of each readable path that was named by way of a symbolic link."""
    agent: bool


def _nearest(path: Path, others: Collection[Path]) -> Path | None:
    """Return the innermost of *others* that *path* lies in."""
    return next((parent for parent in path.parents if parent in others), None)


def _interpreter() -> Iterator[Path]:
    """Yield the paths of the interpreter, its packages and this package; no other entry of sys.path."""
    if sys.prefix != sys.base_prefix:
        yield from (Path(sys.prefix, name) for name in ENVIRONMENT_FILES)
    yield from map(Path, {sys.base_prefix, sys.base_exec_prefix})
    yield from (Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    user_site = site.getusersitepackages()
    if user_site in sys.path:
        yield Path(user_site)
    program = Path(sys.executable)
    yield program
    for _ in range(MAX_LINKS):  # each link on the way tells where a library lies
        if not program.is_symlink():
            break
        program = program.parent / program.readlink()
        yield program
    yield PACKAGE
