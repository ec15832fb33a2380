"""The command line of an agent: recipes, mistakes, and programs that are gone."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import pytest

from pytest_autoresearch.agents import registry
from pytest_autoresearch.agents.command.agent import Command
from pytest_autoresearch.errors import AgentUnavailable, StorageError
from pytest_autoresearch.system import temporary
from tests.agents.command.bench import BETTER, Bench
from tests.project import Project

pytestmark = pytest.mark.timeout(60)  # who waits for what never ends fails

README = Path(__file__).parents[3] / "README.md"


OPTION = "--autoresearch-agent="


# What the README recommends, as a shell would read it.
RECIPES = [
    words[-1].removeprefix(OPTION)
    for line in README.read_text(encoding="utf-8").splitlines()
    if line.startswith("pytest ") and OPTION in line
    for words in [shlex.split(line)]
    if " " in words[-1]
]


def test_the_readme_has_recipes() -> None:
    programs = [shlex.split(line)[0] for line in RECIPES]
    assert programs == ["claude", "codex", "gemini", "opencode", "aider"]


@pytest.mark.parametrize("line", RECIPES)
def test_a_recipe_reaches_its_program(line: str, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    name, *words = shlex.split(line)
    found = bench.path / "found"
    program = bench.program(
        f"""
edit()
again = open("/dev/stdin").read()
open({str(found)!r}, "w").write(json.dumps([sys.argv, prompt, again]))""",
        name,
    )
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    [asked] = registry.named((line,))
    agent = registry.made(asked, bench.options())
    proposal = agent.propose(bench.briefing)
    assert proposal is not None
    assert proposal.files["train.py"] == BETTER
    assert agent.name == proposal.agent == name
    argv, prompt, again = json.loads(found.read_text())
    assert argv == [str(program), *words]
    assert prompt.startswith("Lower val_bpb.")
    assert again == prompt


def test_no_shell_reads_the_line(bench: Bench) -> None:
    found = bench.path / "found"
    program = bench.program(f'edit(); open({str(found)!r}, "w").write(json.dumps(sys.argv[1:]))')
    words = ["$HOME", "*", "a b", ";", "`id`", ">", "x"]
    Command(f"{program} {shlex.join(words)}", bench.options()).propose(bench.briefing)
    assert json.loads(found.read_text()) == words


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("no-such-agent --print", "there is no such program"),
        ("./no-such-agent", "there is no such program"),
        ('agent -p "unclosed', "No closing quotation"),
        ("experiment/train.py", "there is no such program"),
    ],
    ids=["missing", "missing file", "quotation", "not executable"],
)
def test_a_line_that_starts_nothing_is_refused_at_once(line: str, reason: str, project: Project) -> None:
    session = project.research(f"--autoresearch-agent={line}").exits(4)
    session.shows(f"ERROR: --autoresearch-agent={line}: {reason}").hides("Traceback")


def test_a_program_that_cannot_be_started_any_more_is_gone(bench: Bench) -> None:
    agent = bench.agent("edit()")
    (bench.path / "programs" / "agent").unlink()
    with pytest.raises(AgentUnavailable, match=r"exit code 127: .*No such file"):
        agent.propose(bench.briefing)
    agent = bench.agent("edit()")
    (bench.path / "programs" / "agent").write_text("#!/no/such/interpreter\n")
    with pytest.raises(AgentUnavailable, match="exit code 127"):
        agent.propose(bench.briefing)
    assert bench.is_tidy()


def test_without_room_for_its_files_the_session_ends(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No other agent, and no run, would have any."""
    agent = bench.agent("edit()")
    monkeypatch.setattr(temporary, "_own", lambda: tmp_path / "gone")
    with pytest.raises(StorageError, match="the disk fails: No such file or directory"):
        agent.propose(bench.briefing)
