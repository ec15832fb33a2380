"""Starts pytest in a fork of a process that has imported it already.

A session that starts from nothing spends a third of its time on imports, and the tests start hundreds. These
are processes like any other: each has its own session, environment, working directory and signals, imports
the plugin itself from where it is installed, and can be killed. What they share is the seed of their hashes.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import json
import os
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

RESET_SIGNALS = (signal.SIGHUP, signal.SIGTERM, signal.SIGCHLD)
NUMBER = struct.Struct("=q")
# What is read before the first line of a Python program runs. PYTHONPATH can be followed later.
READ_AT_START = ("LD_", "LC_", "LANG", "PATH", "PYTHON")
ENVIRONMENT = dict(os.environ)  # that the process which forks has started in


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
        self.pid = self._read_number()
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
            self.returncode = os.waitstatus_to_exitcode(self._read_number())
        return self.returncode

    def communicate(self, timeout: float) -> tuple[str, None]:
        """Return all that it prints until it has ended."""
        deadline, pieces = time.monotonic() + timeout, [b""]
        while select.select([self.stdout], [], [], max(deadline - time.monotonic(), 0))[0]:
            pieces.append(os.read(self.stdout.fileno(), 1 << 16))
            if not pieces[-1]:
                self.wait(max(deadline - time.monotonic(), 0))
                return b"".join(pieces).decode().replace("\r\n", "\n").replace("\r", "\n"), None
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

    def _read_number(self) -> int:
        data = os.read(self._status, NUMBER.size)
        assert data, "the process that forks has ended"
        number: int = NUMBER.unpack(data)[0]
        return number


def can_fork_for(environment: Mapping[str, str]) -> bool:
    """Tell whether a fork sees *environment* as a program that starts anew would."""

    def read_at_start(variables: Mapping[str, str]) -> dict[str, str]:
        names = (name for name in variables if name.startswith(READ_AT_START) and name != "PYTHONPATH")
        return {name: variables[name] for name in names}

    return read_at_start(environment) == read_at_start(ENVIRONMENT)


@functools.cache
def _server() -> socket.socket:
    """Return the connection to the process that forks; it ends with this one."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with there:
        process = subprocess.Popen(
            [sys.executable, __file__, str(there.fileno())],
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
    """Fork for each request, and tell how the process has ended through the pipe that came with it."""
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
                for unneeded in (channel.detach(), ended, waker, *status_of.values()):
                    os.close(unneeded)
                run_pytest(json.loads(request), status, stdout)
            os.close(stdout)
            status_of[pid] = status


def import_pytest() -> None:
    """Import pytest with its own plugins, and what the plugin needs of others; nothing of this project."""
    from _pytest.config import default_plugins

    for name in ("git", "psutil", *(f"_pytest.{name}" for name in default_plugins)):
        importlib.import_module(name)


def run_pytest(request: Mapping[str, Any], status: int, stdout: int) -> NoReturn:
    """Turn this fork into the pytest that is asked for, and tell its id once it can be sent signals."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in RESET_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.write(status, NUMBER.pack(os.getpid()))
    os.close(status)
    os.dup2(stdout, 1)
    os.dup2(stdout, 2)
    os.close(stdout)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    tempfile.tempdir = None
    added = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[0:0] = [request["folder"], *(path for path in added if path and path not in sys.path)]
    sys.argv[1:] = request["arguments"]
    runpy.run_module("pytest", run_name="__main__", alter_sys=True)
    raise SystemExit


if __name__ == "__main__":
    del sys.path[0]  # the folder of this file
    import_pytest()
    serve(socket.socket(fileno=int(sys.argv[1])))
