"""A script that gives no score ends as a verdict of its own, with the reason on the screen."""

from __future__ import annotations

import re

import pytest

from tests.project import SCRIPT, Project

PRINT = 'print(f"val_bpb:'
SLOW = "import time, sys; sys.stdout.flush(); time.sleep(60)  # "


@pytest.mark.parametrize(
    ("old", "new", "verdict", "reason"),
    [
        ("LR = 0.04", "LR = oops", "crashed", "exit code 1: \"NameError: name 'oops' is not defined\""),
        ("LR = 0.04", "LR = 0.04; import os; os.abort()", "crashed", "killed by SIGABRT"),
        ("LR = 0.04", "LR = 0.04; import os; os.kill(os.getpid(), 40)", "crashed", "killed by signal 40"),
        ("LR = 0.04", "LR = 0.04; raise MemoryError('a lot')", "out of memory", "MemoryError: a lot"),
        (
            "LR = 0.04",
            "LR = 0.04; raise RuntimeError('[enforce fail] DefaultCPUAllocator: not enough memory: 1 bytes')",
            "out of memory",
            "not enough memory",
        ),
        (
            "LR = 0.04",
            "import sys; sys.exit('torch.AcceleratorError: CUDA error: out of memory\\n\\nHelp!')",
            "out of memory",
            "Help",
        ),
        (
            "LR = 0.04",
            "import sys; sys.exit('[rank0]: torch.OutOfMemoryError: CUDA out of memory.')",
            "out of memory",
            "CUDA",
        ),
        (
            "LR = 0.04",
            "import sys; sys.exit('x.InductorError: OutOfMemoryError: tried to')",
            "out of memory",
            "tried",
        ),
        (
            "LR = 0.04",
            "import sys; sys.exit('numpy._core._exceptions._ArrayMemoryError: 1')",
            "out of memory",
            "Array",
        ),
        (
            "LR = 0.04",
            "import sys; sys.exit('RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED')",
            "out of memory",
            "CU",
        ),
        ("LR = 0.04", "LR = 0.04; raise ValueError('out of memory')", "crashed", "ValueError: out of"),
        (PRINT, 'print(f"loss:', "crashed", "no line 'val_bpb: NUMBER' in its output"),
        (PRINT, 'print("val_bpb: nan") #', "crashed", 'val_bpb is "nan"'),
        (PRINT, 'print("val_bpb: -inf") #', "crashed", 'val_bpb is "-inf"'),
        (PRINT, 'print("val_bpb: good") #', "crashed", 'val_bpb is "good"'),
        (PRINT, 'print("val_bpb: -1e308") #', "crashed", 'val_bpb is "-1e308"'),
        (PRINT, "import time; time.sleep(60) #", "timeout", "still running after 2 s, its limit"),
        ("LR = 0.04", "LR = (", "refused", "line 3: '(' was never closed"),
        ("LR = 0.04", "LR = 0.04; assert LR > 1", "refused", "LR > 1"),
        ("LR = 0.04", "LR = 0.04 #" + "x" * 300_000, "refused", "bytes, at most 262144 are allowed"),
    ],
    ids=[
        "error",
        "signal",
        "real-time",
        "memory",
        "memory of torch",
        "memory of CUDA",
        "memory of a rank",
        "memory of a compiler",
        "memory of numpy",
        "memory of a library",
        "memory in words",
        "silent",
        "nan",
        "infinite",
        "word",
        "too large",
        "hang",
        "syntax",
        "assert",
        "huge",
    ],
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
    session.shows('exit code 1: "ZeroDivisionError: float division by zero"', "  > LR = 0.04 / 0")
    session.hides("runs/run.py")


def test_output_without_end_does_no_harm(project: Project) -> None:
    flood = "LR = 0.05\nfor _ in range(300): print('x' * 100_000, end='')\nprint()"
    project.proposes(("LR = 0.04", flood)).research().exits(0).decides("kept")
    log = project.path / ".autoresearch" / "t" / "logs" / "0001.log"
    assert 2 << 20 <= log.stat().st_size < 3 << 20


def test_what_a_script_prints_does_not_reach_the_terminal_raw(project: Project) -> None:
    project.proposes(("LR = 0.04", "raise SystemExit('\\x1b[2J\\x1b]0;owned\\x07 \\u202ebye')"))
    session = project.research().exits(0).decides("crashed")
    session.shows("CRASHED").hides("\x1b[2J", "\x07", "\u202e")


FIGURES = ("num_steps", "total_tokens_M", "peak_vram_mb", "training_seconds")
ODD = ("nan", "inf", "much", "1e308", "-1", "-1e308", "9e99", "1e16")


def test_odd_figures_beside_the_score_do_no_harm(project: Project) -> None:
    edits = []
    for number, odd in enumerate(ODD, 1):
        printed = "".join(f"\\n{name}: {odd}" for name in FIGURES)
        edits.append((PRINT, f"print(f'---\\nval_bpb: {number}{printed}')\nraise SystemExit #"))
    project.proposes(*edits)
    session = project.research("--junitxml=report.xml").exits(0).decides(*["discarded"] * len(ODD))
    for entry in project.ledger():
        [run] = entry["measurements"]
        assert not {"steps", "training_tokens", "memory_mb", "training_seconds"} & run.keys()
    messages = project.git("log", "--no-walk", "--format=%B", "--glob=refs/autoresearch/t/000*")
    for text in (session.screen, messages, (project.path / "report.xml").read_text()):
        assert not re.search(r"\d{30}|Infinity|NaN", text)


def test_a_large_score_is_shown_in_short(project: Project) -> None:
    project.proposes((PRINT, "print(f'val_bpb: -1e95') #"))
    session = project.research().exits(0).decides("kept").shows("KEPT (-1.0000e+95, -1.0000e+95 ±")
    session.shows("1.0000e+95 ±").hides("0" * 20)
    assert project.ledger()[0]["measurements"][0]["score"] == -1e95
    assert "Val-Bpb: -1e+95\n" in project.message("refs/autoresearch/t/0001")


def test_a_script_that_closes_its_output_and_lives_on_is_ended(project: Project) -> None:
    project.proposes((PRINT, "import os, time; os.close(1); os.close(2); time.sleep(60) #"))
    session = project.research("--timeout=2").exits(0).decides("timeout")
    session.shows("still running")


def test_a_child_that_keeps_writing_does_not_hold_a_finished_script(project: Project) -> None:
    later = "sleep 1; while true; do echo x; done"
    chatter = f"LR = 0.05\nimport subprocess\nsubprocess.Popen({later!r}, shell=True)"
    session = project.proposes(("LR = 0.04", chatter)).research("--timeout=30").exits(0).decides("kept")
    assert project.ledger()[0]["measurements"][0]["wall_seconds"] < 10, session.screen


def test_a_failed_working_tree_does_not_reach_the_terminal_raw(project: Project) -> None:
    project.research("--autoresearch-trials=0").exits(0)
    project.script.write_text("raise SystemExit('\\x1b[2J\\x1b]0;owned\\x07' + 'x' * 60_000)")
    session = project.pytest("experiment/train.py").exits(1).hides("\x1b[2J", "\x07")
    assert len(session.screen) < 6_000


def test_a_metric_of_any_size_keeps_its_digits(pytester: pytest.Pytester) -> None:
    project = Project(pytester, script='X = 2e-8\nprint("val_bpb:", X)\n')
    project.proposes(("2e-8", "1e-8")).research().exits(0).decides("kept").shows("2.0e-08 -> 1.0e-08")
    assert project.records[0]["mean"] == 1e-8
    project.pytest("-k", "baseline").exits(0)
