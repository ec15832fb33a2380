"""The sandbox of a coding agent: the network and the home, but neither the repository nor the data."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from pytest_autoresearch.errors import SandboxUnavailable, UsageError
from pytest_autoresearch.sandbox import enforcers
from pytest_autoresearch.sandbox.policy import Enforcer, Policy

# Variables that an agent does not inherit: they name data, are pytest's, or redirect git.
KEPT_BACK = re.compile(
    r"AUTORESEARCH_.*|HF_(HOME|HUB_CACHE|ASSETS_CACHE|DATASETS_CACHE)|PYTEST_.*|COV(ERAGE)?_.*|OLDPWD"
    r"|GIT_(DIR|WORK_TREE|COMMON_DIR|INDEX_FILE|NAMESPACE|PREFIX|(ALTERNATE_)?OBJECT_DIRECTOR(Y|IES))"
)
# Variables that name files of certificates.
CERTIFICATES = (
    "CURL_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
)


def agent_policy(
    enforcer: Enforcer, program: Path, hidden: Sequence[Path], scratch: Path, work: Path
) -> Policy:
    """Return the policy of an agent's *program* in the folder *work*.

    Raises:
        OSError: a path of *hidden* cannot be hidden from it.
    """
    if enforcer == "none":
        return Policy(scratch, work=work, agent=True)
    hidden = (*hidden, *_caches())
    if problem := exposed(hidden):
        raise OSError(problem)
    certificates = (os.environ[name] for name in CERTIFICATES if name in os.environ)
    return Policy(
        scratch,
        readable=(*_whereabouts(program, hidden), *map(Path, certificates)),
        hidden=hidden,
        writable=(Path.home(),),
        work=work,
        agent=True,
    )


def agent_enforcer(asked: str) -> Enforcer:
    """Return the enforcer for the value *asked* of ``autoresearch_agent_sandbox``.

    Raises:
        UsageError: it does not work here.
    """
    try:
        enforcer = enforcers.choose(asked)
    except SandboxUnavailable as error:
        raise UsageError(f"autoresearch_agent_sandbox={asked}: {error}") from error
    if asked == "auto" and enforcer == "none":
        raise UsageError("autoresearch_agent_sandbox=auto: neither bwrap nor landlock works here")
    return enforcer


def places_of(folder: Path) -> Iterator[Path]:
    """Yield the folder, its repository, and the git directory, which may be elsewhere."""
    yield folder
    with contextlib.suppress(FileNotFoundError):  # without git there is no campaign
        done = subprocess.run(
            ["git", "rev-parse", "--path-format=absolute", "--show-toplevel", "--git-common-dir"],
            cwd=folder,
            env={key: value for key, value in os.environ.items() if not KEPT_BACK.fullmatch(key)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        yield from map(Path, done.stdout.splitlines())


def _caches() -> Iterator[Path]:
    """Yield the folders in which ``prepare.py`` keeps data, of other versions and profiles too."""
    if own := os.environ.get("AUTORESEARCH_CACHE"):
        yield Path(own)
    yield Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "pytest-autoresearch")


def exposed(hidden: Sequence[Path]) -> str | None:
    """Return why *hidden* cannot be hidden from a process that may use the home, None if it can."""
    home = Path.home().resolve()
    if home == Path("/"):
        return "the home is /, and nothing in it can be hidden"
    for path in (path.resolve() for path in hidden):
        if path == home or path in home.parents:
            return f"{path} is to be hidden, and the home lies in it"
    return None


def _whereabouts(program: Path, hidden: Sequence[Path]) -> Iterator[Path]:
    """Yield *program* by each of its names, and its folder unless that overlaps with *hidden* paths."""
    real = program.resolve()
    yield from (program, real)
    folder = real.parent.parent if real.parent.name == "bin" else real.parent
    for path in (path.resolve() for path in hidden):
        if path == folder or path in folder.parents or folder in path.parents:
            return
    yield folder
