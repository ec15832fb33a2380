"""Start a process in a sandbox: under bubblewrap, under Landlock and seccomp, or under no enforcer.

In every case a supervisor process starts it and kills its whole process tree at the end.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_autoresearch.sandbox import bubblewrap, gpus, landlock, seccomp, system_calls
from pytest_autoresearch.sandbox.policy import PACKAGE, Enforcer, Policy, ResolvedPolicy
from pytest_autoresearch.sandbox.process import SandboxedProcess

if TYPE_CHECKING:
    from pytest_autoresearch.sandbox.supervisor import LaunchRequest

SUPERVISOR = Path(__file__).resolve().with_name("supervisor.py")
MIN_OPEN_FILES = 128  # for Python, torch and its threads


def start(
    command: Sequence[str],
    policy: Policy,
    enforcer: Enforcer,
    environment: Mapping[str, str],
    pass_fds: Sequence[int] = (),
    *,
    stdio: Sequence[int] = (),
) -> SandboxedProcess:
    """Start *command* in the sandbox.

    Args:
        command: a command line; the program is searched on the PATH of *environment*.
        policy: what it may read and write.
        enforcer: one that works here.
        environment: the whole environment, except TMPDIR.
        pass_fds: descriptors that it inherits. No enforcer limits what it does through them.
        stdio: descriptors for its standard input, output and error. By default its input is empty, and both
            outputs are read from :attr:`SandboxedProcess.output`.

    Raises:
        OSError: a folder, or a program of the enforcer, is missing.
        ValueError: a hidden path lies in the writable folder.
    """
    resolved = policy.resolved()
    # The kernel counts descriptors in transit in sockets per user, over all processes, and refuses a sender
    # once they exceed its own limit. With half our limit a run fails itself before it makes others fail.
    open_files = max(resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2, MIN_OPEN_FILES)
    devices = [] if resolved.agent else gpus.nodes(environment)  # an agent works while a run is measured
    with contextlib.ExitStack() as opened:  # closed here once the supervisor has inherited it
        request: LaunchRequest = {
            "command": [_without_links(command[0]), *command[1:]],
            "environment": _environment(environment, resolved, enforcer, devices),
            "descriptors": list(pass_fds),
            "open_files": None if resolved.agent else open_files,
            "stdio": list(stdio),
            "ruleset": None,
            "names_threads": not resolved.agent,
            "system_calls": None,
            "listens": None,
        }
        if enforcer == "bwrap":
            # An agent shares the host's network, and so its abstract Unix sockets.
            filter_ = seccomp.descriptor(seccomp.program(isolated=not resolved.agent, agent=resolved.agent))
            opened.callback(os.close, filter_)
            request["command"] = bubblewrap.command(request["command"], resolved, devices, filter_)
            request["descriptors"].append(filter_)
        elif enforcer == "landlock":
            request["ruleset"] = ruleset = landlock.ruleset(resolved, devices)
            opened.callback(os.close, ruleset)
            scoped = landlock.abi() >= landlock.SIGNALS
            request["system_calls"] = seccomp.program(isolated=False, scoped=scoped, agent=resolved.agent)
            if not scoped:
                request["listens"] = {name: system_calls.number(name) for name in ("seccomp", "kill")}
        return _supervised(request, resolved.work)


def _supervised(request: LaunchRequest, work: Path) -> SandboxedProcess:
    """Start a supervisor in the working directory *work*, and send it the *request*."""
    reader, writer = os.pipe()
    control = open(writer, "wb")  # noqa: PTH123, SIM115 - a descriptor, closed by the SandboxedProcess
    inherited = [reader, *request["descriptors"], *request["stdio"]]
    if request["ruleset"] is not None:
        inherited.append(request["ruleset"])
    try:
        try:
            process = subprocess.Popen(
                # Without its site Python starts in half the time.
                [sys.executable, "-I", "-S", str(SUPERVISOR), str(reader)],
                cwd=work,
                # The interpreter may need this variable to find its own library, and needs no other.
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
            control.write(marshal.dumps(dict(request)))
            control.flush()
    except BaseException:
        with contextlib.suppress(OSError):
            control.close()  # ends the supervisor, if it was started
        raise
    return SandboxedProcess(process, control)


def _environment(
    given: Mapping[str, str], policy: ResolvedPolicy, enforcer: Enforcer, devices: Sequence[Path]
) -> dict[str, str]:
    temporary = "/tmp" if enforcer == "bwrap" else str(policy.folder)  # noqa: S108 - private to the namespace
    environment = {**given, "TMPDIR": temporary}
    if policy.agent:
        return environment
    if enforcer != "none":  # without an enforcer all GPUs stay visible
        environment |= gpus.renumbered(devices, given)
    if "PATH" in given:
        entries = given["PATH"].split(os.pathsep)
        environment["PATH"] = os.pathsep.join(os.path.realpath(entry) for entry in entries if entry)
    if policy.readable.isdisjoint(PACKAGE.parents):
        # An editable install lies in a repository. Python lists the folders that it imports from, and
        # Landlock would have to let it list the whole repository. So it imports this package by a link.
        editable = policy.folder / ".editable"
        editable.mkdir(exist_ok=True)
        with contextlib.suppress(FileExistsError):
            (editable / PACKAGE.name).symlink_to(PACKAGE)
        paths = [given.get("PYTHONPATH"), str(editable)]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return environment


def _without_links(program: str) -> str:
    """Return an absolute path with the links of its folder resolved: the sandbox may not have them."""
    # The last link stays: the interpreter of an environment is one, and finds its packages beside it.
    path = Path(program)
    return str(path.parent.resolve() / path.name) if path.is_absolute() else program
