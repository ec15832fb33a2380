"""A pytest plugin that kills its process, with SIGKILL, just before a step that writes something down.

``KILL_AT`` names the step, and after a colon which of its occurrences it is, from 1. The plugin runs inside
the session that is to die, so it imports nothing of the tests.
"""

from __future__ import annotations

import functools
import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytest_autoresearch.campaign import logs
from pytest_autoresearch.campaign.command import Git
from pytest_autoresearch.campaign.derived import DerivedFile
from pytest_autoresearch.system import locks, temporary

WRITING = (
    *("hash-object", "commit-tree", "update-ref", "maintenance"),
    *("switch", "reset", "checkout-index"),
)
AT = os.environ["KILL_AT"]
passed: Counter[str] = Counter()


def step(name: str) -> None:
    """Pass a step, or die there."""
    passed[name] += 1
    if f"{name}:{passed[name]}" == AT:
        os.kill(os.getpid(), signal.SIGKILL)


def before(owner: Any, name: str, called: str, place: Callable[..., str] = lambda *_: "") -> None:
    """Make *owner*'s function *name* a step, which *place* tells from others."""
    original: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(original)
    def stepped(*arguments: Any, **options: Any) -> Any:
        step(called + place(*arguments))
        return original(*arguments, **options)

    setattr(owner, name, stepped)


def git(original: Callable[..., Any]) -> Callable[..., Any]:
    """Make git's writing commands steps."""

    @functools.wraps(original)
    def called(self: Git, command: str, *arguments: str, **options: Any) -> Any:
        if command in WRITING and (command != "hash-object" or "-w" in arguments):
            step(f"git {command}{' of a tree' * ('tree' in arguments)}")
        return original(self, command, *arguments, **options)

    return called


Git.run = git(Git.run)  # type: ignore[method-assign]
before(DerivedFile, "__init__", "open ", lambda _file, path, *_: path.name)
before(DerivedFile, "append", "add to ", lambda file, *_: file.path.name)
before(os, "fsync", "let a line reach the disk")
before(Path, "replace", "replace a file")
before(logs.Logs, "start", "drop a log")
before(logs.Logs, "stored", "note a log")
before(locks.Lock, "__init__", "take a lock")
before(locks.Lock, "_write", "sign a lock")
before(locks.Lock, "release", "let go of a lock")
before(temporary, "remove", "remove a folder")
