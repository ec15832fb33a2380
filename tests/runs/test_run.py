"""One run of an experiment that is not the embedded one: its files, its command, its figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_autoresearch.judging.rules import Always
from pytest_autoresearch.records.spec import ExperimentSpec
from pytest_autoresearch.runs.config import RunConfig
from pytest_autoresearch.runs.request import RunRequest
from pytest_autoresearch.runs.run import measure
from pytest_autoresearch.system import temporary

MAIN = """
import sys
from model.layers import WIDTH
import helper
print("accuracy:", WIDTH + float(sys.argv[1]) + helper.VALUE)
print("peak_gb: 2")
print("epochs: 3")
"""


def test_a_command_runs_in_a_folder_with_its_files() -> None:
    spec = ExperimentSpec(
        Path("/experiment"),
        command=("python", "src/main.py", "0.5"),
        metric="accuracy",
        direction="maximize",
        outputs={"memory_mb": ("peak_gb", 1024.0), "steps": ("epochs", 10.0)},
    )
    config = RunConfig(spec, fixed={"src/helper.py": "VALUE = 0.25"})
    files = {"src/main.py": MAIN, "src/model/layers.py": "WIDTH = 4", "src/helper.py": "VALUE = 100"}
    run = measure(RunRequest("candidate", files, 1, Always(answer=True)), config)
    assert (run.score, run.memory_mb, run.steps) == (4.75, 2048, 30)
    assert (run.training_tokens, run.training_seconds) == (None, None)


@pytest.mark.parametrize("path", ["", "/tmp/x", "..", "../x", "a/../../x", "a/..", "."])  # noqa: S108
def test_no_path_leaves_the_folder(path: str) -> None:
    with (
        pytest.raises(ValueError, match="is no path inside of a run's folder"),
        temporary.folder("run", {path: "text"}),
    ):
        pass


def test_a_folder_holds_the_files_to_the_byte_and_is_removed() -> None:
    with temporary.folder("run", {"a/b/c.txt": "é\r\n", "d": ""}) as folder:
        assert (folder / "a/b/c.txt").read_bytes() == b"\xc3\xa9\r\n"
        assert (folder / "d").read_bytes() == b""
    assert not folder.exists()
