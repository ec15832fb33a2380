"""A long run shows where it is: in place on a terminal, once a minute in a log."""

from __future__ import annotations

import os
import pty
import select
import struct
import sys
import termios
import time
from fcntl import ioctl

import pyte
import pytest

from pytest_autoresearch.plugin.progress import fit
from pytest_autoresearch.text import single_line
from tests.project import PLUGINS, Project

SLOW = """\
import time
for step in range(8):
    line = f"step {step:05d} ({step * 12.5}%) | loss: 4.1 | tok/sec: 19,504 | remaining: {8 - step}s"
    print("\\r" + line, end="", flush=True)
    time.sleep(0.06)
print()
print("val_bpb: 1.5")
"""


def watch(
    project: Project, *arguments: str, columns: int = 80, term: str = "xterm"
) -> tuple[list[str], list[str], int]:
    """Run pytest on a terminal; return the live lines that were seen, the last screen, and the exit code."""
    without = [argument for name in PLUGINS for argument in ("-p", f"no:{name}")]
    pid, terminal = pty.fork()
    if pid == 0:
        ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        os.chdir(project.path)
        # Given whole: GNU readline puts COLUMNS into the process's own, behind Python's back.
        environment = {"PATH": os.environ["PATH"], "HOME": str(project.path), "TERM": term}
        command = [sys.executable, "-m", "pytest", *without, *arguments]
        os.execve(sys.executable, command, environment)  # noqa: S606
    screen = pyte.Screen(columns, 40)
    stream = pyte.ByteStream(screen)
    live: list[str] = []
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if not select.select([terminal], [], [], 0.5)[0]:
            continue
        try:
            chunk = os.read(terminal, 65536)
        except OSError:
            break
        if not chunk:
            break
        stream.feed(chunk)
        live += [line.rstrip() for line in screen.display if "step 0000" in line]
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    return live, [line.rstrip() for line in screen.display if line.strip()], os.waitstatus_to_exitcode(status)


@pytest.mark.parametrize(("columns", "options"), [(80, ()), (40, ()), (80, ("-s",))])
def test_it_is_redrawn_in_place_and_gone_at_the_end(
    pytester: pytest.Pytester, columns: int, options: tuple[str, ...]
) -> None:
    project = Project(pytester, script=SLOW)
    live, screen, code = watch(
        project, "--autoresearch", "--autoresearch-trials=0", *options, columns=columns
    )
    assert code == 0, screen
    assert len(set(live)) >= 3
    assert [line for line in live if not line.startswith("  > step 0000") or len(line) >= columns] == []
    assert any("tok/sec" in line for line in live) == (columns == 80)
    assert not any("step 0000" in line for line in screen)
    [line] = [line for line in screen if "::baseline" in line]
    assert line.startswith("experiment/train.py::baseline PASSED"[:columns])


def test_a_log_without_terminal_is_not_cluttered(pytester: pytest.Pytester) -> None:
    project = Project(pytester, script=SLOW)
    project.research("--autoresearch-trials=0").exits(0).hides("step 0000", "\x1b")


def test_a_dumb_terminal_gets_no_motion(pytester: pytest.Pytester) -> None:
    project = Project(pytester, script=SLOW)
    live, _, code = watch(project, "--autoresearch", "--autoresearch-trials=0", term="dumb")
    assert (live, code) == ([], 0)


def test_a_log_has_a_line_now_and_then(pytester: pytest.Pytester) -> None:
    project = Project(pytester, script=SLOW)
    project.write(
        conftest_py="from pytest_autoresearch.plugin import progress\n\nprogress.HEARTBEAT = 0.2\n"
    ).commit()
    session = project.research("--autoresearch-trials=0", "--autoresearch-agent=tuner").exits(0).hides("\x1b")
    assert session.screen.count("\n  baseline: > step 0000") >= 3, session.screen


def test_fields_are_dropped_from_the_right() -> None:
    text = "step 1 | loss: 2 | remaining: 3s"
    assert fit(text, 40) == text
    assert fit(text, 20) == "step 1 | loss: 2"
    assert fit(text, 4) == "step"
    assert fit(text, -1) == ""


def test_wide_characters_take_two_columns() -> None:
    assert fit("\u5bbd" * 9, 5) == "\u5bbd\u5bbd"
    assert fit("\u5bbd | \U0001f600", 6) == "\u5bbd"


def test_a_line_of_wide_characters_is_redrawn_in_place(pytester: pytest.Pytester) -> None:
    project = Project(pytester, script=SLOW.replace("loss: 4.1", "\u5bbd" * 45))
    live, screen, code = watch(project, "--autoresearch", "--autoresearch-trials=0")
    assert code == 0, screen
    assert len(set(live)) >= 3
    assert [line for line in screen if "step 0000" in line or "\u5bbd" in line] == []


def test_nothing_moves_the_cursor() -> None:
    assert single_line("a\x1b[2Kb\x1b]0;t\x07c\rd\u202e  e") == "ab ]0;t c d e"
