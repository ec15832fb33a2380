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
CERTS = ("CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "SSL_CERT_DIR", "SSL_CERT_FILE")


def agent_policy(
    enforcer: Enforcer, program: Path, hidden: Sequence[Path], scratch: Path, work: Path
) -> Policy:
    """Return the policy of an agent's *program* in the folder *work*.

    Raises:
        OSError: a path of *hidden* cannot be hidden from it.
    """
    if enforcer == "none":
        return Policy(scratch, work=work, agent=True)
    # Also where ``prepare.py`` keeps the data of other versions and profiles.
    usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "pytest-autoresearch")
    hidden = (*hidden, usual, Path(os.environ.get("AUTORESEARCH_CACHE") or usual))
    if problem := _exposed(hidden):
        raise OSError(problem)
    certificates = (os.environ[name] for name in CERTS if name in os.environ)
    return Policy(
        scratch,
        readable=(*_whereabouts(program, hidden), *map(Path, certificates)),
        hidden=hidden,
        writable=(Path.home(),),
        work=work,
        agent=True,
    )


def agent_sandbox(asked: str, folder: Path) -> tuple[Enforcer, tuple[Path, ...]]:
    """Return the enforcer for a value of ``autoresearch_agent_sandbox``, and the places that it has to hide.

    These are the experiment's *folder* and its repository.

    Raises:
        UsageError: it does not work here.
    """
    try:
        enforcer = enforcers.choose(asked)
    except SandboxUnavailable as error:
        raise UsageError(f"autoresearch_agent_sandbox={asked}: {error}") from error
    if asked == "auto" and enforcer == "none":
        raise UsageError("autoresearch_agent_sandbox=auto: neither bwrap nor landlock works here")
    places = () if enforcer == "none" else tuple(_places(folder))
    if places and (problem := _exposed(places)):
        raise UsageError(f"autoresearch_agent_sandbox={asked}: {problem}")
    return enforcer, places


def _places(folder: Path) -> Iterator[Path]:
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


def _exposed(hidden: Sequence[Path]) -> str | None:
    """Return why *hidden* cannot be hidden from a process that may use the home, None if it can."""
    home = Path.home().resolve()
    if home == Path("/"):
        return "the home is /, and nothing in it can be hidden"
    for path in (path.resolve() for path in hidden):
        if home.is_relative_to(path):
            return f"{path} is to be hidden, and the home lies in it"
    return None


def _whereabouts(program: Path, hidden: Sequence[Path]) -> Iterator[Path]:
    """Yield *program* by each of its names, and its folder unless that overlaps with *hidden* paths."""
    real = program.resolve()
    yield from (program, real)
    folder = real.parent.parent if real.parent.name == "bin" else real.parent
    places = [path.resolve() for path in hidden]
    if not any(path.is_relative_to(folder) or folder.is_relative_to(path) for path in places):
        yield folder
