"""Starts pytest in a fork of a process that has imported it, and the plugin, already.

A session that starts from nothing spends half of its time on imports, and the tests start hundreds. These are
processes like any other: each has its own session, environment, working directory and signals, and can be
killed.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn, Self

# The rooms whose modules a campaign imports sooner or later. The others bring torch, or a client of a model.
ROOMS = (
    "campaign",
    "executors",
    "judging",
    "loop",
    "plugin",
    "records",
    "report",
    "runs",
    "sandbox",
    "source",
)
AGENTS = ("chain", "hybrid", "tuner.agent")
HEARD = (signal.SIGHUP, signal.SIGTERM, signal.SIGCHLD)
NUMBER = struct.Struct("=q")
# Of the environment, what is read before the first line of a Python program runs.
READ_AT_START = ("LD_", "LC_", "LANG", "PATH", "PYTHON")


class Process:
    """A running pytest, with the part of :class:`subprocess.Popen` that the tests need."""

    def __init__(self, arguments: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        """Start ``python -m pytest`` with *arguments* in *folder*, with *environment* as all of its own."""
        request = {"arguments": arguments, "folder": str(folder), "environment": dict(environment)}
        self._status, status = os.pipe()
        output, stdout = os.pipe()
        self.stdout: IO[str] = os.fdopen(output, encoding="utf-8")
        socket.send_fds(_server(), [json.dumps(request).encode()], [status, stdout])
        os.close(status)
        os.close(stdout)
        self.pid = self._told()
        self.returncode: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stdout.close()
        self.wait()
        os.close(self._status)

    def poll(self) -> int | None:
        """Return the exit code, the negative number of a signal; None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended."""
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("pytest", timeout or 0)
            self.returncode = os.waitstatus_to_exitcode(self._told())
        return self.returncode

    def communicate(self, timeout: float) -> tuple[str, None]:
        """Return all that it prints until it has ended."""
        deadline, pieces = time.monotonic() + timeout, [b""]
        while select.select([self.stdout], [], [], max(deadline - time.monotonic(), 0))[0]:
            pieces.append(os.read(self.stdout.fileno(), 1 << 16))
            if not pieces[-1]:
                self.wait(max(deadline - time.monotonic(), 0))
                return b"".join(pieces).decode(), None
        raise subprocess.TimeoutExpired("pytest", timeout)

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Send it SIGKILL, if it still runs."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Send it SIGTERM, if it still runs."""
        self.send_signal(signal.SIGTERM)

    def _told(self) -> int:
        number: int = NUMBER.unpack(os.read(self._status, NUMBER.size))[0]
        return number


def can_start(changed: Mapping[str, str]) -> bool:
    """Tell whether a fork sees what is *changed* in its environment, as a program that starts anew would."""
    return not any(name.startswith(READ_AT_START) and name != "PYTHONPATH" for name in changed)


@functools.cache
def _server() -> socket.socket:
    """Return the connection to the process that forks; it ends with this one."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with there:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(there.fileno())],
            cwd=Path(__file__).parents[1],
            pass_fds=[there.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
    atexit.register(process.wait)
    atexit.register(here.close)
    return here


# -- the process that forks ---------------------------------------------------------------------------------


def serve(channel: socket.socket) -> None:
    """Fork for each request; tell the process's id and status through the pipe that came with it."""
    status_of: dict[int, int] = {}
    ended, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waker)
    while True:
        ready, _, _ = select.select([channel.fileno(), ended], [], [])
        if ended in ready:
            os.read(ended, 1 << 10)
            while status_of and (found := os.waitpid(-1, os.WNOHANG))[0]:
                descriptor = status_of.pop(found[0])
                with contextlib.suppress(BrokenPipeError):
                    os.write(descriptor, NUMBER.pack(found[1]))
                os.close(descriptor)
        if channel.fileno() in ready:
            request, descriptors, _, _ = socket.recv_fds(channel, 1 << 20, 2)
            if not request:
                return
            status, stdout = descriptors
            if (pid := os.fork()) == 0:
                for unneeded in (channel.detach(), ended, waker, status, *status_of.values()):
                    os.close(unneeded)
                become(json.loads(request), stdout)
            os.close(stdout)
            status_of[pid] = status
            os.write(status, NUMBER.pack(pid))


def import_plugin() -> None:
    """Import what a campaign needs; the plugin's modules as pytest does, with its assertions rewritten."""
    from _pytest.assertion import install_importhook
    from _pytest.config import get_config

    hook = install_importhook(get_config())
    hook.mark_rewrite("pytest_autoresearch", "pytest_timeout", "xdist")
    import pytest_autoresearch

    names = [f"agents.{name}" for name in AGENTS]
    for room in ROOMS:
        folder = str(Path(pytest_autoresearch.__file__).with_name(room))
        names += [f"{room}.{module.name}" for module in pkgutil.iter_modules([folder])]
    for name in names:
        importlib.import_module(f"pytest_autoresearch.{name}")
    for name in ("git", "psutil", "pytest_timeout", "_pytest.junitxml", "xdist.plugin"):
        importlib.import_module(name)
    sys.meta_path.remove(hook)


def become(request: Mapping[str, Any], stdout: int) -> NoReturn:
    """Turn this fork into the pytest that is asked for."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in HEARD:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(stdout, 1)
    os.dup2(stdout, 2)
    os.close(stdout)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    tempfile.tempdir = None
    added = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[0:1] = [request["folder"], *(path for path in added if path and path not in sys.path)]
    sys.argv[1:] = request["arguments"]
    runpy.run_module("pytest", run_name="__main__", alter_sys=True)
    raise SystemExit


if __name__ == "__main__":
    import_plugin()
    serve(socket.socket(fileno=int(sys.argv[1])))
