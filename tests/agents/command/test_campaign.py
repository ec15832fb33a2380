"""A command-line agent in a whole campaign."""

from __future__ import annotations

import signal

import pytest

from tests.agents.command.bench import BETTER, Bench, Lock
from tests.project import wait_for

pytestmark = pytest.mark.timeout(60)  # who waits for what never ends fails


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
