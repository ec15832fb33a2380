"""What an agent finds, and what becomes of what it leaves."""

from __future__ import annotations

import json
import math
import os
import tempfile
import threading
import time

import pytest

from pytest_autoresearch.errors import AgentUnavailable, NoAnswer
from pytest_autoresearch.records.proposal import Proposal
from tests.agents.command.bench import BETTER, Bench, Lock
from tests.project import PREPARE

pytestmark = pytest.mark.timeout(60)  # who waits for what never ends fails


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
