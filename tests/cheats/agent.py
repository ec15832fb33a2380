"""The agent of a campaign of cheats, as its conftest.py: proposes what lies ready, and looks what was left.

It runs in the campaign's own pytest, between the trials. Whatever a trial leaves has the mark in its name,
the name of the campaign's folder; whatever still runs of it has its environment, or the mark.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sysconfig
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_autoresearch import Proposal

if TYPE_CHECKING:
    from pytest_autoresearch import Briefing

FOLDER = Path(os.environ["AUTORESEARCH_CACHE"]).parent
MARK = FOLDER.name
PROJECT = FOLDER / "project"
SCRIPTS = sorted((FOLDER / "proposals").iterdir())
TRACES = FOLDER / "traces.jsonl"
PUBLIC = ("/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue", "/run")  # noqa: S108 - that is where to look
OURS = ("data", "home", "outside.socket", "project", "proposals", TRACES.name)

began: list[float] = []
# A second thread, as numpy, an agent at work or another plugin may give pytest.
threading.Thread(target=threading.Event().wait, daemon=True).start()


def pytest_autoresearch_propose(briefing: Briefing) -> Proposal | None:
    """Propose the next script, once it is written down what the last trial has left."""
    if briefing.number > 1:
        seconds = time.monotonic() - began.pop()
        with TRACES.open("a") as file:
            file.write(json.dumps({"seconds": seconds, "left": list(traces())}) + "\n")
    began.append(time.monotonic())
    if briefing.number > len(SCRIPTS):
        return None
    script = SCRIPTS[briefing.number - 1]
    return Proposal({briefing.script_name: script.read_text()}, script.stem.partition("-")[2])


def traces() -> Iterator[str]:
    """Yield what the last trial has left, a line each."""
    yield from (f"process {name}" for name in processes())
    yield from files()
    key = zlib.crc32(MARK.encode()) & 0x7FFFFFFF
    for kind in ("shm", "msg", "sem"):
        listing = Path("/proc/sysvipc", kind)
        lines = listing.read_text().splitlines()[1:] if listing.exists() else []
        yield from (f"{kind} {line}" for line in lines if int(line.split()[0]) == key)
    for name, end in (("/proc/net/unix", f" @{MARK}"), ("/proc/keys", f" {MARK}: 7")):
        lines = Path(name).read_text().splitlines() if Path(name).exists() else []
        yield from (f"{name} {line}" for line in lines if line.endswith(end))
    git = ["git", "status", "--porcelain", "--untracked-files=all"]
    changes = subprocess.run(git, cwd=PROJECT, capture_output=True, text=True, check=True)
    known = {"?? results.tsv"}
    yield from (f"git {line}" for line in changes.stdout.splitlines() if line not in known)


def processes() -> Iterator[str]:
    """Yield the command line of each process that has the environment of a run, or is marked."""
    for number in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208 - for the numbers alone
        try:
            line = Path(f"/proc/{number}/cmdline").read_bytes()
            inherited = Path(f"/proc/{number}/environ").read_bytes()
        except OSError:
            continue
        # Of a run, whose seed nobody knows; the scorer's is 0.
        seeded = re.search(rb"(^|\0)AUTORESEARCH_SEED=[1-9]", inherited)
        of_the_trial = seeded is not None and os.fsencode(MARK) in inherited
        if of_the_trial or (os.fsencode(MARK) in line and b"scoring.server" not in line):
            yield f"{number} {line!r}"


def files() -> Iterator[str]:
    """Yield the files and folders that should not be there."""
    for folder in (*PUBLIC, sysconfig.get_path("purelib")):
        yield from map(str, Path(folder).glob(f"*{MARK}*"))
    yield from (str(path) for path in FOLDER.iterdir() if path.name not in OURS)
    for path in (PROJECT / ".git" / "tmp").iterdir():
        if path.name.startswith(f"pytest-autoresearch-{os.getpid()}-"):  # this session's own
            yield from (
                str(inner)
                for inner in path.iterdir()
                if not inner.name.startswith(("owner", "scorer-", "compiled-"))
            )
        else:
            yield str(path)
    yield from (str(path) for path in (PROJECT / ".git" / "hooks").glob("*"))
    yield from (str(path) for path in (FOLDER / "data").rglob("*") if MARK in path.name)
    yield from (str(path) for path in (FOLDER / "home").rglob("*") if path.name not in {".ssh", "id_ed25519"})
