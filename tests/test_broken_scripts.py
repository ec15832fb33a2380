"""A script that gives no score ends as a verdict of its own, with the reason on the screen."""

from __future__ import annotations

import pytest

from tests.project import SCRIPT, Project

PRINT = 'print(f"val_bpb:'
SLOW = "import time, sys; sys.stdout.flush(); time.sleep(60)  # "


@pytest.mark.parametrize(
    ("old", "new", "verdict", "reason"),
    [
        ("LR = 0.04", "LR = oops", "crashed", "exit code 1: NameError: name 'oops' is not defined"),
        ("LR = 0.04", "LR = 0.04; import os; os.abort()", "crashed", "killed by SIGABRT"),
        (PRINT, 'print(f"loss:', "crashed", "no line 'val_bpb: NUMBER' in its output"),
        (PRINT, 'print("val_bpb: nan") #', "crashed", "val_bpb is nan"),
        (PRINT, 'print("val_bpb: -inf") #', "crashed", "val_bpb is -inf"),
        (PRINT, 'print("val_bpb: good") #', "crashed", "val_bpb is good"),
        (PRINT, "import time; time.sleep(60) #", "timeout", "still running after 2 s, its limit"),
        ("LR = 0.04", "LR = (", "refused", "line 3: '(' was never closed"),
        ("LR = 0.04", "LR = 0.04; assert LR > 1", "refused", "LR > 1"),
        ("LR = 0.04", "LR = 0.04 #" + "x" * 300_000, "refused", "bytes, at most 262144 are allowed"),
    ],
    ids=["error", "signal", "silent", "nan", "infinite", "word", "hang", "syntax", "assert", "huge"],
)
def test_it_is_a_verdict_and_the_loop_goes_on(
    project: Project, old: str, new: str, verdict: str, reason: str
) -> None:
    project.proposes((old, new), ("LR = 0.04", "LR = 0.05"))
    session = project.research("--timeout=2").exits(0).decides(verdict, "kept").leaves_clean()
    session.shows(f"{verdict.upper()} (", "KEPT")
    assert reason in project.ledger()[0]["reason"]
    assert reason in " ".join(session.screen.split())


def test_a_broken_working_tree_is_a_compact_failure(project: Project) -> None:
    project.research("--autoresearch-trials=0").exits(0)
    project.script.write_text(SCRIPT.replace("0.04", "0.04 / 0"))
    session = project.pytest("experiment/train.py").exits(1)
    session.shows("exit code 1: ZeroDivisionError: float division by zero", "LR = 0.04 / 0")
    session.hides("measuring/run.py")


def test_output_without_end_does_no_harm(project: Project) -> None:
    flood = "LR = 0.05\nfor _ in range(300): print('x' * 100_000, end='')\nprint()"
    project.proposes(("LR = 0.04", flood)).research().exits(0).decides("kept")
    log = project.path / ".autoresearch" / "t" / "logs" / "0001.log"
    assert 8 << 20 <= log.stat().st_size < 9 << 20


def test_what_a_script_prints_does_not_reach_the_terminal_raw(project: Project) -> None:
    project.proposes(("LR = 0.04", "raise SystemExit('\\x1b[2J\\x1b]0;owned\\x07 \\u202ebye')"))
    session = project.research().exits(0).decides("crashed")
    session.shows("CRASHED").hides("\x1b[2J", "\x07", "\u202e")
