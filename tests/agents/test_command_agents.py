"""Coding agents that are started by a command line: small scripts here, which do what large ones might."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import math
import os
import shlex
import signal
import socket
import stat
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_autoresearch.agents import registry
from pytest_autoresearch.agents.agent import AgentOptions
from pytest_autoresearch.agents.briefing import Briefing
from pytest_autoresearch.agents.command.agent import Command
from pytest_autoresearch.agents.command.report import AgentReport
from pytest_autoresearch.errors import (
    AgentUnavailable,
    BudgetExhausted,
    NoAnswer,
    SandboxUnavailable,
    StorageError,
)
from pytest_autoresearch.records.proposal import Failure, Proposal, Usage
from pytest_autoresearch.sandbox import enforcers
from pytest_autoresearch.system import temporary
from tests.project import PREPARE, SCRIPT, Project, wait_for

pytestmark = pytest.mark.timeout(60)  # who waits for what never ends fails

BETTER = SCRIPT.replace("LR = 0.04", "LR = 0.05")

PRELUDE = f"""\
#!{sys.executable} -IS
import fcntl, json, os, pathlib, shutil, signal, socket, subprocess, sys, time

train = pathlib.Path("experiment/train.py")
prompt = sys.stdin.read()

def edit(old="LR = 0.04", new="LR = 0.05"):
    train.write_text(train.read_text().replace(old, new))

def describe(text):
    pathlib.Path(os.environ["AUTORESEARCH_DESCRIPTION_FILE"]).write_text(text)

def git(*arguments):
    subprocess.run(["git", *arguments], check=True, stdout=subprocess.DEVNULL)

"""

README = Path(__file__).parents[2] / "README.md"
OPTION = "--autoresearch-agent="
# What the README recommends, as a shell would read it.
RECIPES = [
    words[-1].removeprefix(OPTION)
    for line in README.read_text(encoding="utf-8").splitlines()
    if line.startswith("pytest ") and OPTION in line
    for words in [shlex.split(line)]
    if " " in words[-1]
]


class Bench:
    """A project, and agents to try on its experiment."""

    def __init__(self, project: Project, path: Path) -> None:
        self.project = project
        self.path = path
        self.scratch = path / "scratch"
        self.scratch.mkdir()
        self.briefing = Briefing(
            tag="t",
            number=1,
            program="Lower val_bpb.\n",
            fixed=PREPARE,
            files={"train.py": SCRIPT},
            start_files={"train.py": SCRIPT},
            script_name="train.py",
            history=(),
            score=0.98,
            noise=0.0,
            metric="val_bpb",
            direction="minimize",
            platform={"device": "cpu"},
        )

    def program(self, body: str, name: str = "agent", prelude: str = PRELUDE) -> Path:
        """Write an agent's program and return its path."""
        program = self.path / "programs" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(prelude + body)
        program.chmod(0o755)
        return program

    def options(self, timeout: float = 60.0, enforcer: str = "none") -> AgentOptions:
        """Return the options of a session with these values in the ini file."""
        return AgentOptions(script=self.project.script, timeout=timeout, sandbox=enforcer)

    def agent(self, body: str, timeout: float = 60.0, enforcer: str = "none") -> Command:
        """Return the agent that a program makes."""
        return Command(str(self.program(body)), self.options(timeout, enforcer))

    def proposal(self, body: str, enforcer: str = "none") -> Proposal:
        """Return what a program proposes."""
        proposal = self.agent(body, enforcer=enforcer).propose(self.briefing)
        assert self.is_tidy()
        return proposal

    def refusal(self, body: str, timeout: float = 60.0) -> NoAnswer:
        """Return why a program has no answer."""
        with pytest.raises(NoAnswer) as refused:
            self.agent(body, timeout).propose(self.briefing)
        assert self.is_tidy()
        return refused.value

    def is_tidy(self) -> bool:
        """Whether nothing is left of any answer."""
        return not list(self.scratch.iterdir())


@pytest.fixture
def bench(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    bench = Bench(project, tmp_path)
    with temporary.folder("before"):  # so that this process's own folder does not lie in the bench's
        pass
    monkeypatch.setattr(tempfile, "tempdir", str(bench.scratch))
    return bench


class Lock:
    """A file that a process of an agent holds locked as long as it lives."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # Away from its parent, deaf to every signal that can be ignored, and as good as endless.
        self.daemon = f"""
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    held = open({str(path)!r}, "a")
    fcntl.flock(held, fcntl.LOCK_EX)
    held.write("held")
    held.flush()
    time.sleep(600)
while not os.path.exists({str(path)!r}) or not open({str(path)!r}).read():
    time.sleep(0.01)
"""

    def wait(self) -> None:
        """Wait until the process is there."""
        wait_for(iter(lambda: self.path.exists() and self.path.read_text() == "held", None))

    def is_held(self) -> bool:
        """Whether the process is alive; it has to have been."""
        assert self.path.read_text().startswith("held")
        with self.path.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False


# -- through a whole campaign -------------------------------------------------------------------------------


def test_what_an_agent_edits_is_measured_and_kept(bench: Bench) -> None:
    program = bench.program('edit(); describe("LR 0.04 -> 0.05\\n")')
    session = bench.project.research(f"--autoresearch-agent={program}", "--autoresearch-trials=1")
    session.exits(0).shows("agent: agent").decides("kept").leaves_clean()
    [entry] = bench.project.ledger()
    assert (entry["description"], entry["agent"]) == ("LR 0.04 -> 0.05", "agent")
    assert bench.project.script.read_text() == BETTER
    assert not list(bench.project.temporary.iterdir())


def test_a_crash_is_mended_by_its_author(bench: Bench) -> None:
    program = bench.program("""
if "crashed" in prompt:
    assert 'raise OSError("no luck")' in train.read_text() and "| OSError: no luck" in prompt
    edit('raise OSError("no luck")', "")
else:
    edit(new="LR = 0.03")
    train.write_text(train.read_text() + 'raise OSError("no luck")')
describe("LR up")
""")
    session = bench.project.research(f"--autoresearch-agent={program}", "--autoresearch-trials=1")
    session.exits(0).decides("discarded").leaves_clean()
    assert bench.project.ledger()[0]["crashes"] == ['exit code 1: "OSError: no luck"']


def test_a_change_elsewhere_is_refused_and_the_next_agent_asked(bench: Bench) -> None:
    program = bench.program('edit(); pathlib.Path("experiment/prepare.py").write_text("print(1)")')
    other = bench.program('edit(new="LR = 0.03"); describe("as told")', "other")
    session = bench.project.research(
        f"--autoresearch-agent={program}", f"--autoresearch-agent={other}", "--autoresearch-trials=1"
    )
    session.exits(0).decides("discarded").leaves_clean()
    [entry] = bench.project.ledger()
    assert entry["agent"] == "other"
    assert entry["declined_by"] == ["agent: changed prepare.py, which is fixed"]


def test_nothing_of_an_agent_outlives_a_pytest_that_is_killed(bench: Bench) -> None:
    lock = Lock(bench.path / "lock")
    program = bench.program(lock.daemon + "time.sleep(600)")
    with bench.project.start(
        "--autoresearch", "--autoresearch-tag=t", f"--autoresearch-agent={program}"
    ) as process:
        lock.wait()
        assert lock.is_held()
        process.kill()
    wait_for(iter(lambda: not lock.is_held(), None))


def test_ctrl_c_ends_an_agent_that_prepares_and_leaves_nothing(bench: Bench) -> None:
    lock = Lock(bench.path / "lock")
    program = bench.program(f"""
if "being measured now" not in prompt:
    edit(new="LR = 0.05; import time; time.sleep(30)")
    sys.exit()
{lock.daemon}
time.sleep(600)
""")
    with bench.project.start(
        "--autoresearch", "--autoresearch-tag=t", f"--autoresearch-agent={program}"
    ) as process:
        lock.wait()
        process.send_signal(signal.SIGINT)
        screen, _ = process.communicate(timeout=30)
    assert process.returncode == 2, screen
    assert not lock.is_held()
    assert not list(bench.project.temporary.iterdir())


# -- what it finds ------------------------------------------------------------------------------------------


def test_it_finds_the_experiment_and_nothing_else(bench: Bench) -> None:
    found = bench.path / "found"
    bench.proposal(f"""
edit()
def asked(*arguments):
    return subprocess.run(["git", *arguments], capture_output=True, text=True).stdout.split()
pathlib.Path({str(found)!r}).write_text(json.dumps([
    asked("ls-files"), asked("status", "--porcelain"), asked("log", "--format=%s"),
    asked("branch", "--show-current"), asked("remote"),
    pathlib.Path("experiment/prepare.py").read_text(), prompt,
    pathlib.Path(os.environ["AUTORESEARCH_PROMPT_FILE"]).read_text(), os.getcwd(), os.environ["PWD"],
    asked("rev-parse", "--show-toplevel"),
]))""")
    files, status, log, branch, remotes, fixed, prompt, same, where, told, top = json.loads(found.read_text())
    assert files == [
        ".gitignore",
        *(f"experiment/{name}" for name in ("prepare.py", "program.md", "train.py")),
    ]
    assert status == ["M", "experiment/train.py"]
    assert log == ["The", "experiment", "as", "it", "is"]
    assert branch == remotes == []
    assert fixed == PREPARE
    assert prompt == same
    assert "Lower val_bpb." in prompt
    assert "Edit experiment/train.py" in prompt
    assert ".autoresearch/description.txt" in prompt
    assert [where] == top == [told]


def test_its_environment_is_the_users_without_what_leads_to_data(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_API_KEY", "sk-secret")
    monkeypatch.setenv("AUTORESEARCH_CACHE", "/data")
    monkeypatch.setenv("HF_HOME", "/data")
    monkeypatch.setenv("GIT_DIR", str(bench.project.path / ".git"))
    found = bench.path / "found"
    bench.proposal(f'edit(); open({str(found)!r}, "w").write(json.dumps(dict(os.environ)))')
    environment = json.loads(found.read_text())
    assert environment["SOME_API_KEY"] == "sk-secret"
    assert environment["HOME"] == os.environ["HOME"]
    kept_back = {"AUTORESEARCH_CACHE", "HF_HOME", "GIT_DIR", "PYTEST_CURRENT_TEST", "OLDPWD"}
    assert not kept_back.intersection(environment)
    own = {key for key in environment if key.startswith("AUTORESEARCH_")}
    assert own == {"AUTORESEARCH_PROMPT_FILE", "AUTORESEARCH_DESCRIPTION_FILE"}


def test_git_does_not_reach_the_users_repository(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    # Even if what is temporary lies in it.
    monkeypatch.setattr(tempfile, "tempdir", str(bench.project.temporary))
    before = bench.project.git("for-each-ref"), bench.project.git("status", "--porcelain")
    proposal = bench.agent("""
edit()
shutil.rmtree(".git")
for arguments in (["checkout", "-b", "mine"], ["commit", "-am", "mine"], ["tag", "mine"], ["stash"]):
    assert subprocess.run(["git", *arguments], stderr=subprocess.DEVNULL).returncode
""").propose(bench.briefing)
    assert proposal.files["train.py"] == BETTER
    assert before == (bench.project.git("for-each-ref"), bench.project.git("status", "--porcelain"))


# -- what becomes of it -------------------------------------------------------------------------------------

ACCEPTED = {
    "edits": "edit()",
    "replaces": 'text = train.read_text(); train.unlink(); train.write_text(text.replace("0.04", "0.05"))',
    "commits": 'edit(); git("commit", "-qam", "LR up"); git("commit", "-q", "--allow-empty", "-m", "Again")',
    "commits on a branch": 'edit(); git("checkout", "-qb", "mine"); git("commit", "-qam", "LR up")',
    "rewrites history": 'edit(); git("commit", "-qa", "--amend", "-m", "LR up")',
    "destroys its repository": 'edit(); shutil.rmtree(".git"); open(".git", "w").write("gitdir: /nowhere")',
    "starts a repository anew": 'edit(); shutil.rmtree(".git"); git("init", "-q")',
    "leaves litter": """
edit()
for name in (".aider.chat.history.md", ".claude/settings.json", "experiment/__pycache__/train.pyc"):
    pathlib.Path(name).parent.mkdir(exist_ok=True)
    pathlib.Path(name).write_text("x")
""",
    "leaves temporary files": 'edit(); open(os.environ["TMPDIR"] + "/notes", "w").write("x")',
    "deletes its prompt": 'edit(); shutil.rmtree(".autoresearch")',
    "makes an empty folder": 'edit(); os.mkdir("notes")',
    "closes its output": "edit(); os.close(1); os.close(2); time.sleep(0.2)",
    "prints much": "edit(); print('x' * (9 << 20)); print('done')",
    "prints no text": "edit(); os.write(1, bytes(range(256)))",
}
REFUSED = {
    "changed prepare.py, which is fixed": 'edit(); open("experiment/prepare.py", "a").write("#")',
    "deleted prepare.py, which is fixed": 'edit(); os.remove("experiment/prepare.py")',
    "changed program.md, which is fixed": """
edit()
program = pathlib.Path("experiment/program.md")
text = program.read_text()
program.unlink()
pathlib.Path(os.environ["TMPDIR"], "copy").write_text(text)
program.symlink_to(os.environ["TMPDIR"] + "/copy")
""",
    "changed .gitignore, which is fixed": 'edit(); open(".gitignore", "w").write("*")',
    "changed prepare.py, changed program.md, which are fixed": """
edit()
for name in ("prepare", "program"):
    path = next(pathlib.Path("experiment").glob(name + ".*"))
    path.write_text("")
git("commit", "-qam", "All of it")
""",
    "made notes.md: only train.py may be changed": 'edit(); open("experiment/notes.md", "w").write("x")',
    "made closed/notes.md: only train.py may be changed": """
edit()
os.mkdir("closed")
open("closed/notes.md", "w").write("x")
os.chmod("closed", 0o600)
""",
    "made experiment, deleted prepare.py, deleted program.md: only train.py may be changed": """
os.rename("experiment", os.environ["TMPDIR"] + "/other")
os.symlink(os.environ["TMPDIR"] + "/other", "experiment")
""",
    "made a, made b, made c and 2 more: only train.py may be changed": """
edit()
for name in "edcba":
    open(name, "w").close()
""",
    "changed nothing": "describe('LR up')",
    "train.py cannot be read: No such file or directory": "train.unlink()",
    "train.py cannot be read: Too many levels of symbolic links": """
train.unlink()
train.symlink_to("/etc/passwd")
""",
    "train.py is no regular file": "train.unlink(); os.mkfifo(train)",
    "train.py has 300,000 bytes, at most 262,144 are allowed": "train.write_text('#' * 300_000)",
    "exit code 3: not logged in": 'edit(); print("x"); print("not logged in", file=sys.stderr); sys.exit(3)',
    "exit code 1: Invalid API key": """
print(json.dumps({"type": "result", "is_error": True, "result": "Invalid API key", "total_cost_usd": 0}))
sys.exit(1)
""",
    "exit code 4: no output": "edit(); sys.exit(4)",
    "killed by SIGTERM: no output": "os.kill(os.getpid(), signal.SIGTERM)",
}


@pytest.mark.parametrize("way", ACCEPTED)
def test_a_change_of_the_script_is_a_proposal(way: str, bench: Bench) -> None:
    assert bench.proposal(ACCEPTED[way]).files["train.py"] == BETTER


@pytest.mark.parametrize("reason", REFUSED, ids=lambda reason: reason[:40])
def test_anything_else_is_none(reason: str, bench: Bench) -> None:
    refusal = bench.refusal(REFUSED[reason])
    assert str(refusal) == reason
    assert not isinstance(refusal, AgentUnavailable)


def test_one_that_never_ends_is_killed_with_all_its_descendants(bench: Bench) -> None:
    lock = Lock(bench.path / "lock")
    refusal = bench.refusal(f"edit()\n{lock.daemon}\ntime.sleep(600)", timeout=1)
    assert str(refusal) == "no answer after 1 s"
    assert not lock.is_held()


def test_what_it_leaves_running_is_killed_when_it_has_ended(bench: Bench) -> None:
    lock = Lock(bench.path / "lock")
    assert bench.proposal(f"edit()\n{lock.daemon}").files["train.py"] == BETTER
    assert not lock.is_held()


def test_closing_ends_an_answer_in_progress(bench: Bench) -> None:
    lock = Lock(bench.path / "lock")
    agent = bench.agent(f"{lock.daemon}\ntime.sleep(600)")
    said: list[str] = []

    def ask() -> None:
        try:
            agent.propose(bench.briefing)
        except NoAnswer as error:
            said.append(str(error))

    asking = [threading.Thread(target=ask) for _ in range(2)]
    for thread in asking:
        thread.start()
    lock.wait()
    started = time.monotonic()
    agent.close()
    assert bench.is_tidy()
    assert not lock.is_held()
    assert time.monotonic() - started < 5
    for thread in asking:
        thread.join()
    assert said == ["it was ended"] * 2
    with pytest.raises(NoAnswer, match="it was ended"):
        agent.propose(bench.briefing)


def test_two_threads_may_ask_at_once(bench: Bench) -> None:
    agent = bench.agent("time.sleep(0.2); edit()", timeout=math.inf)
    proposals: list[Proposal] = []
    asking = [
        threading.Thread(target=lambda: proposals.append(agent.propose(bench.briefing))) for _ in range(3)
    ]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert [proposal.files["train.py"] for proposal in proposals] == [BETTER] * 3


# -- what it says -------------------------------------------------------------------------------------------

RESULT = {
    "type": "result",
    "is_error": False,
    "result": "LR 0.04 -> 0.05\n\nMore of it.",
    "num_turns": 3,
    "total_cost_usd": 0.0125,
    "usage": {
        "input_tokens": 10,
        "cache_creation_input_tokens": 20,
        "cache_read_input_tokens": 30,
        "output_tokens": 40,
        "service_tier": "standard",
    },
}
USED = Usage(3, 10, 20, 30, 40, 0.0125)

DESCRIPTIONS = {
    "its file": (
        'describe("\\n  From\\tthe \\x1b[1mfile\\nand more"); print(json.dumps({"result": "x"}))',
        "From the file",
    ),
    "its answer": ('print(json.dumps({"result": "# In JSON"})); git("commit", "-qam", "x")', "# In JSON"),
    "its commit": (
        'git("commit", "-qam", "x"); git("commit", "-q", "--allow-empty", "-m", "Last\\n\\nx"); print("x")',
        "Last",
    ),
    "its output": ('print("First"); print("Last line\\n \\n"); print("noise", file=sys.stderr)', "Last line"),
    "its change": ("", "+1 -1 lines"),
    "its change, not some JSON": ('print(json.dumps({"type": "turn.completed"}))', "+1 -1 lines"),
    "a link for a file": (
        'os.symlink("/etc/hostname", os.environ["AUTORESEARCH_DESCRIPTION_FILE"])',
        "+1 -1 lines",
    ),
    "a long file": ('describe("x" * 1000)', "x" * 199 + "…"),
    "no repository": ('shutil.rmtree(".git"); print("Out")', "Out"),
}


@pytest.mark.parametrize("source", DESCRIPTIONS)
def test_a_proposal_is_described_by_the_best_there_is(source: str, bench: Bench) -> None:
    code, description = DESCRIPTIONS[source]
    assert bench.proposal(f"edit()\n{code}").description == description


@pytest.mark.parametrize(
    "output",
    [
        json.dumps(RESULT),
        json.dumps(RESULT, indent=2),
        json.dumps([{"type": "system"}, {"type": "assistant", "message": {}}, RESULT]),
        "".join(f"{json.dumps(event)}\n" for event in ({"type": "system"}, {"type": "assistant"}, RESULT)),
        f"a warning\n{json.dumps(RESULT)}\nanother\n",
        f"a warning\n{json.dumps(RESULT, indent=2)}",
        json.dumps([{"result": "first"}, RESULT]),
    ],
    ids=["object", "pretty", "list", "stream", "noise", "pretty noise", "last"],
)
def test_what_claude_prints_is_understood(output: str) -> None:
    report = AgentReport.of(output)
    assert report.text == RESULT["result"]
    assert report.usage == USED


@pytest.mark.parametrize(
    "output",
    [
        "",
        "done",
        "{",
        "[" * 100_000,
        '{"result": 1}',
        '["result"]',
        "[1" + "0" * 5000 + "]",
        '{"type": "result"}',
    ],
    ids=["nothing", "text", "torn", "deep", "number", "list", "long", "none"],
)
def test_other_output_is_no_report(output: str) -> None:
    assert AgentReport.of(output) == AgentReport()


def test_odd_figures_count_for_nothing() -> None:
    odd = {"result": "x", "num_turns": True, "total_cost_usd": float("nan"), "usage": {"input_tokens": -1}}
    assert AgentReport.of(json.dumps(odd)) == AgentReport("x")
    assert AgentReport.of('{"response": "LR up", "stats": {}, "usage": 7}') == AgentReport("LR up")
    assert AgentReport.of('{"result": null, "response": "LR up"}') == AgentReport("LR up")


def test_what_it_cost_is_told_with_and_without_a_proposal(bench: Bench) -> None:
    told = f"print({json.dumps(json.dumps(RESULT))})"
    assert bench.proposal(f"edit(); {told}").usage == USED
    assert bench.refusal(told).usage == USED
    assert bench.refusal(f'edit(); open("x", "w").close(); {told}').usage == USED


def test_it_is_not_asked_when_the_money_is_spent(bench: Bench) -> None:
    agent = bench.agent("edit()")
    left = dataclasses.replace(bench.briefing, cost=0.99, max_cost=1.0)
    assert agent.propose(left).files["train.py"] == BETTER
    with pytest.raises(BudgetExhausted, match=r"proposals have cost 1\.00 of 1\.00 US dollars"):
        agent.propose(dataclasses.replace(left, cost=1.0))


def test_a_fix_starts_from_what_crashed(bench: Bench) -> None:
    agent = bench.agent(
        "assert 'failed: \"no luck\"' in prompt; edit('LR = 0.09', 'LR = 0.05'); describe('x')"
    )
    crashed = Proposal({"train.py": SCRIPT.replace("LR = 0.04", "LR = 0.09")}, "LR up")
    assert agent.fix(bench.briefing, Failure(crashed, "no luck", "a log", 0)).files["train.py"] == BETTER
    same = bench.agent("describe('no idea')")
    with pytest.raises(NoAnswer, match="changed nothing"):
        same.fix(bench.briefing, Failure(crashed, "no luck", "a log", 0))


# -- the command line ---------------------------------------------------------------------------------------


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


# -- in a sandbox -------------------------------------------------------------------------------------------


@pytest.fixture(params=["bwrap", "landlock"])
def enforcer(request: pytest.FixtureRequest) -> str:
    try:
        return enforcers.choose(request.param)
    except SandboxUnavailable as reason:
        pytest.skip(str(reason))


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
