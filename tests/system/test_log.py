"""What a trial printed is kept, with its refs too, and a run that prints gigabytes does no harm."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_autoresearch.system.log import EXCERPT, HEAD, TAIL, BoundedLog, excerpt
from tests.project import Project

GAIN = ("LR = 0.04", "LR = 0.05")
LOSS = ("BATCH = 64", "BATCH = 640")
CRASH = ("LR = 0.05", "LR = 0.05\nraise SystemExit('it went wrong')")


def log_of(project: Project, number: int, tag: str = "t") -> Path:
    return project.path / ".autoresearch" / tag / "logs" / f"{number:04d}.log"


def test_every_trial_has_its_log_on_the_disk_and_in_git(project: Project) -> None:
    project.proposes(GAIN, LOSS, CRASH).research().exits(0).decides("kept", "discarded", "crashed")
    for number in (1, 2, 3):
        shown = project.git("show", f"refs/autoresearch/t/log/{number:04d}")
        assert shown == log_of(project, number).read_text().rstrip("\n")
    assert "val_bpb:          1.06" in project.git("show", "refs/autoresearch/t/log/0002")
    assert project.git("show", "refs/autoresearch/t/log/0003") == "it went wrong"


def test_one_refspec_brings_everything_along(project: Project) -> None:
    project.proposes(GAIN, LOSS).research().exits(0)
    there = project.clone()
    there.git("fetch", "--quiet", "origin", "refs/autoresearch/t/*:refs/autoresearch/t/*")
    assert there.refs() == project.refs()
    assert "LR = 0.05" in there.git("show", "refs/autoresearch/t/0001")
    assert "-BATCH = 64" in there.git("show", "refs/autoresearch/t/0002")
    assert there.git("show", "refs/autoresearch/t/log/0002") == log_of(project, 2).read_text().rstrip()
    there.git("push", "--quiet", "origin", "refs/autoresearch/t/*:refs/autoresearch/elsewhere/*")
    assert project.refs("elsewhere") == project.refs()
    # And there the campaign goes on.
    there.git("checkout", "--quiet", "autoresearch/t")
    more = there.proposes(GAIN, LOSS, ("LR = 0.05", "LR = 0.06"))
    more.research().exits(0).decides("kept", "discarded", "kept")


def test_a_run_that_prints_without_end_fills_no_disk(project: Project) -> None:
    chatty = "print('first words')\nfor _ in range(40):\n    print('x' * 2**20)\nprint('last words')"
    project.proposes((GAIN[0], f"{GAIN[1]}\n{chatty}")).research().exits(0).decides("kept")
    log = log_of(project, 1)
    assert HEAD + TAIL < log.stat().st_size < HEAD + TAIL + 100
    text = log.read_text()
    assert text.startswith("first words\n")
    assert "last words\n" in text
    assert " bytes left out ...]" in text
    stored = project.git("show", "refs/autoresearch/t/log/0001")
    assert len(stored) < EXCERPT + 100
    assert stored.startswith("first words\n")
    assert "last words\n" in stored


def test_logs_of_older_trials_can_be_dropped(project: Project) -> None:
    project.write(pytest_ini="[pytest]\nautoresearch_keep_logs = 2\n").commit()
    project.proposes(GAIN, LOSS, CRASH).research().exits(0).decides("kept", "discarded", "crashed")
    assert not log_of(project, 1).exists()
    assert log_of(project, 2).exists()
    refs = project.git("for-each-ref", "--format=%(refname:lstrip=3)", "refs/autoresearch/t/log/*")
    assert refs.split() == ["log/0002", "log/0003"]


def test_less_can_be_kept_later_on(project: Project) -> None:
    edits = GAIN, LOSS, CRASH
    project.proposes(*edits).research().exits(0)
    project.write(pytest_ini="[pytest]\nautoresearch_keep_logs = 0\n").commit()
    project.proposes(*edits, ("LR = 0.05", "LR = 0.5")).research().exits(0)
    assert not any(log_of(project, number).exists() for number in (1, 2, 3, 4))
    assert not project.git("for-each-ref", "refs/autoresearch/t/log/*")


@pytest.mark.parametrize("value", ["-1", "some", "1.5", ""])
def test_a_number_of_logs_is_a_number(project: Project, value: str) -> None:
    project.write(pytest_ini=f"[pytest]\nautoresearch_keep_logs = {value}\n").commit()
    session = project.research().exits(4)
    session.shows(f"autoresearch_keep_logs is a whole number from 0 on or 'all', not {value!r}")


def test_the_log_of_a_trial_without_a_verdict_is_dropped(project: Project) -> None:
    project.proposes(GAIN).research("--autoresearch-trials=0").exits(0)
    log_of(project, 1).parent.mkdir(exist_ok=True)
    log_of(project, 1).write_text("of a run that was killed\n")
    session = project.research().exits(0).decides("kept")
    session.shows("recovered: trial 1 was stopped before its verdict: its log is dropped")
    assert "killed" not in log_of(project, 1).read_text()


@pytest.mark.parametrize("chunk", [1, 7, 4096, 10**7])
@pytest.mark.parametrize("size", [0, HEAD, HEAD + 1, HEAD + TAIL, HEAD + TAIL + 1, 3 * (HEAD + TAIL)])
def test_a_log_keeps_both_ends(tmp_path_factory: pytest.TempPathFactory, size: int, chunk: int) -> None:
    if size > HEAD + 1 and chunk < 4096:
        chunk = 65536 + chunk
    path = tmp_path_factory.mktemp("logs") / "deep" / "1.log"
    data = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    step = max(chunk, size // 2000 + 1)
    with BoundedLog(path) as log:
        for start in range(0, size, step):
            log.write(data[start : start + step])
    written = path.read_bytes()
    if size <= HEAD + TAIL:
        assert written == data
    else:
        marker = f"\n[... {size - HEAD - TAIL:,} bytes left out ...]\n".encode()
        assert written == data[:HEAD] + marker + data[-TAIL:]


def test_runs_follow_each_other_in_a_log(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("logs") / "1.log"
    for text in (b"one\n", b"two\n"):
        with BoundedLog(path) as log:
            log.write(text)
    assert path.read_bytes() == b"one\ntwo\n" == excerpt(path)
    assert excerpt(path.with_name("none.log")) == b""


def test_a_trial_that_is_tried_again_has_a_log_of_its_own(project: Project) -> None:
    said = ("LR = 0.04", "LR = 0.30\nprint('the first time')"), ("LR = 0.04", "LR = 0.31\nprint('then')")
    project.write(_gitignore="__pycache__/\nresults.tsv\n").proposes(*said).research().exits(0)
    for number in (1, 2):
        project.git("update-ref", "-d", f"refs/autoresearch/t/{number:04d}")
    again = [(old, new.replace("the first time", "once more").replace("then", "later")) for old, new in said]
    project.proposes(*again).research().exits(0).hides("stopped before its verdict")
    logs = [project.git("show", f"refs/autoresearch/t/log/{number:04d}") for number in (1, 2)]
    assert [log.partition("\n")[0] for log in logs] == ["once more", "later"]
