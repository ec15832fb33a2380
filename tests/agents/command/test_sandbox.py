"""An agent in a sandbox has its home and the network, and no data."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_autoresearch.sandbox import enforcers
from tests.agents.command.bench import BETTER, Bench
from tests.project import PREPARE

pytestmark = pytest.mark.timeout(60)  # who waits for what never ends fails


@pytest.fixture
def home(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = bench.path / "home"
    for file in (".config/agent/key", ".cache/pytest-autoresearch/old/val.bin", ".cache/other/val.bin"):
        (home / file).parent.mkdir(parents=True)
        (home / file).write_text("secret")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    return home


@pytest.fixture
def doors(home: Path) -> Iterator[tuple[int, Path, str]]:
    """A TCP port, and two Unix sockets: one in the home and one without a place."""
    place, name = home / ".config" / "door", f"autoresearch-{uuid.uuid4().hex}"
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_UNIX) as named,
        socket.socket(socket.AF_UNIX) as nameless,
    ):
        named.bind(str(place))
        nameless.bind("\0" + name)
        named.listen()
        nameless.listen()
        yield server.getsockname()[1], place, name


@pytest.fixture
def attempts(bench: Bench, home: Path, doors: tuple[int, Path, str]) -> Attempts:
    port, place, name = doors
    hidden, other = home / ".cache" / "other", home / ".cache" / "pytest-autoresearch" / "old" / "val.bin"
    corpus, beside = bench.path / "corpus", bench.path / "private"
    corpus.write_text("secret")
    beside.write_text("secret")
    bench.briefing = dataclasses.replace(bench.briefing, hidden=(hidden, corpus))
    repository, own = bench.project.path, home / ".config" / "agent"
    allowed = {
        "edit": "edit()",
        "read its key": f"open({str(own / 'key')!r}).read()",
        "change its key": f"open({str(own / 'key')!r}, 'w').write('new')",
        "keep a session": f"open({str(own / 'session')!r}, 'w').write('x')",
        "protect it": f"os.chmod({str(own / 'session')!r}, 0o600)",
        "reach a server": f"socket.create_connection(('127.0.0.1', {port}), 5).close()",
        "look up a name": "socket.getaddrinfo('localhost', 80)",
        "use git": "git('status')",
        "start a shell": "subprocess.run(['sh', '-c', 'true'], check=True)",
        "write to nowhere": "open(os.devnull, 'w').write('x')",
        "make a temporary file": "open(os.environ['TMPDIR'] + '/x', 'w').write('x')",
    }
    forbidden = {
        "read validation data": f"open({str(hidden / 'val.bin')!r}).read()",
        "read the corpus": f"open({str(corpus)!r}).read(1)[0]",
        "read the data of another version": f"open({str(other)!r}).read()",
        "read by way of pytest": f"open('/proc/{os.getpid()}/root{hidden}/val.bin').read()",
        "overwrite validation data": f"open({str(hidden / 'val.bin')!r}, 'r+').write('public')",
        "list the repository": f"os.listdir({str(repository)!r})[0]",
        "read the repository": f"open({str(repository / 'experiment/train.py')!r}).read()",
        "change its branches": f"open({str(repository / '.git/refs/heads/mine')!r}, 'w').write('x')",
        "read beside its home": f"open({str(beside)!r}).read()",
        "ask others in its home": f"socket.socket(socket.AF_UNIX).connect({str(place)!r})",
        "ask others in no place": f"socket.socket(socket.AF_UNIX).connect('\\0' + {name!r})",
        "signal pytest": f"os.kill({os.getpid()}, 0)",
    }
    return Attempts(own / "found", allowed, forbidden)


class Attempts:
    """What an agent tries, by name: Python, and what comes of it."""

    def __init__(self, found: Path, allowed: dict[str, str], forbidden: dict[str, str]) -> None:
        self.allowed = allowed
        self.forbidden = forbidden
        self._found = found
        self.code = f"""
came = {{}}
for name, attempt in json.loads({json.dumps(json.dumps(allowed | forbidden))}).items():
    try:
        exec(attempt)
        came[name] = "done"
    except (OSError, IndexError) as error:
        came[name] = type(error).__name__
open({str(found)!r}, "w").write(json.dumps(came))
"""

    def done(self) -> set[str]:
        """Return what succeeded."""
        came = json.loads(self._found.read_text())
        assert came.keys() == self.allowed.keys() | self.forbidden.keys()
        return {name for name, result in came.items() if result == "done"}


def test_an_agent_in_a_sandbox_has_its_home_and_the_network_but_no_data(
    bench: Bench, home: Path, attempts: Attempts, enforcer: str
) -> None:
    assert bench.proposal(attempts.code, enforcer).files["train.py"] == BETTER
    assert attempts.done() == attempts.allowed.keys()
    assert stat.S_IMODE((home / ".config/agent/session").stat().st_mode) == 0o600
    assert (home / ".cache/other/val.bin").read_text() == "secret"


def test_an_agent_without_a_sandbox_can_do_what_its_user_can(bench: Bench, attempts: Attempts) -> None:
    assert bench.proposal(attempts.code).files["train.py"] == BETTER
    assert attempts.done() == attempts.allowed.keys() | attempts.forbidden.keys()


def test_only_landlock_lets_nothing_new_be_made_above_what_is_hidden(
    bench: Bench, home: Path, enforcer: str
) -> None:
    code = f"""
edit()
for path in ({str(home / "new")!r}, {str(home / ".config" / "new")!r}):
    try:
        open(path, "w").close()
    except PermissionError:
        pass
"""
    assert bench.proposal(code, enforcer).files["train.py"] == BETTER
    assert (home / ".config" / "new").exists()
    assert (home / "new").exists() == (enforcer == "bwrap")


def test_a_commit_in_a_sandbox_is_read_there(bench: Bench, home: Path, enforcer: str) -> None:
    assert home.exists()
    mark = bench.path / "mark"
    proposal = bench.proposal(
        f"""
edit()
git("config", "log.showSignature", "true")
git("config", "gpg.program", {str(bench.program(f'open({str(mark)!r}, "w")', "gpg"))!r})
git("commit", "-qam", "LR up")
""",
        enforcer,
    )
    assert proposal.description == "LR up"
    assert not mark.exists()


@pytest.mark.parametrize(("asked", "seen"), [("none", "seen"), ("auto", "hidden")])
def test_a_campaign_hides_its_data_and_itself_in_a_sandbox_alone(
    asked: str, seen: str, bench: Bench, home: Path
) -> None:
    if asked == "auto" and enforcers.choose("auto") == "none":
        pytest.skip("no sandbox works here")
    data = home / ".cache" / "other" / "val.bin"
    listed = f"    print('training_data: ' + {json.dumps(json.dumps([str(data)]))})\n"
    bench.project.write(experiment__prepare_py=PREPARE + listed).commit("Name the data")
    program = bench.program(f"""
def look(path):
    try:
        return "seen" if open(path).read() else "empty"
    except OSError:
        return "hidden"

edit(new="LR = 0.03")
describe("data " + look({str(data)!r}) + ", script " + look({str(bench.project.script)!r}))
""")
    session = bench.project.research(
        f"--autoresearch-agent={program}",
        "--autoresearch-trials=1",
        "-o",
        f"autoresearch_agent_sandbox={asked}",
        HOME=str(home),
        TMPDIR=str(bench.scratch),
    )
    session.exits(0).decides("discarded")
    assert bench.project.ledger()[0]["description"] == f"data {seen}, script {seen}"


def test_a_home_that_holds_what_is_hidden_from_it_is_refused(bench: Bench, enforcer: str) -> None:
    session = bench.project.research(
        f"--autoresearch-agent={bench.program('edit()')}",
        "-o",
        f"autoresearch_agent_sandbox={enforcer}",
        HOME=str(bench.project.path),
    )
    session.exits(4).shows(
        f"ERROR: autoresearch_agent_sandbox={enforcer}: {bench.project.path} is to be hidden, "
        "and the home lies in it"
    )


def test_a_sandbox_that_nobody_knows_is_refused(bench: Bench) -> None:
    session = bench.project.research(
        f"--autoresearch-agent={bench.program('edit()')}", "-o", "autoresearch_agent_sandbox=docker"
    )
    session.exits(4).shows("ERROR: autoresearch_agent_sandbox=docker: there is no enforcer 'docker'")
