"""A proposal maps paths of editable files to their new texts."""

from __future__ import annotations

import pytest

from pytest_autoresearch.records.proposal import Proposal, checked
from tests.agents.test_briefing import SCRIPT, brief


@pytest.mark.parametrize("path", ["train.py", "model/layers.py", "a b/é.yaml"])
def test_paths_inside_the_folder_are_taken(path: str) -> None:
    files = {path: "x = 1"}
    taken = checked(Proposal(files, "x"))
    files.clear()
    assert taken.files == {path: "x = 1"}, "a copy of its own"


@pytest.mark.parametrize(
    "path",
    ["", ".", "..", "/train.py", "../train.py", "a/../../train.py", "./train.py", "a//b", "a/", "a\0b"],
)
def test_other_paths_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match="is no relative path inside the experiment's folder"):
        checked(Proposal({path: "x = 1"}, "x"))


def test_a_proposal_without_files_is_refused_unless_it_stands_for_no_answer() -> None:
    with pytest.raises(ValueError, match="files of a Proposal are empty"):
        checked(Proposal({}, "x"))
    assert checked(Proposal({}, "x", unanswered="nobody has one")).unanswered == "nobody has one"


@pytest.mark.parametrize("files", [None, "x = 1", [("train.py", "x")], {"train.py": b"x"}, {1: "x"}])
def test_files_of_another_type_are_refused(files: object) -> None:
    with pytest.raises(TypeError, match="files of a Proposal map paths to texts"):
        checked(Proposal(files, "x"))  # type: ignore[arg-type]


def test_a_briefing_edits_the_script() -> None:
    briefing = brief()
    assert briefing.edit("DEPTH = 4", "DEPTH = 3") == {"train.py": SCRIPT.replace("DEPTH = 4", "DEPTH = 3")}
    with pytest.raises(ValueError, match=r"train\.py does not contain 'DEPTH = 9'"):
        briefing.edit("DEPTH = 9", "DEPTH = 3")
