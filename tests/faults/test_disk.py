"""A disk that is full, read-only or broken ends a session in one line, and nothing stored is lost."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import disks
from tests.project import Project, Session

EDITS = (("LR = 0.04", "LR = 0.05"), ("LR = 0.05", "LR = 0.06"))
FULL = "the disk is full: "
BEGINNING, BEFORE, AFTER = "in the beginning", "before trial 2", "after the runs of trial 2"


@pytest.fixture
def campaign(project: Project, tmp_path: Path) -> Project:
    """A project whose agent proposes two improvements, and whose disk may fail."""
    project.proposes(*EDITS)
    conftest = project.path / "conftest.py"
    conftest.write_text(conftest.read_text() + disks.FAULT)
    project.commit("Let a disk fail").temporary = tmp_path / "temporary"
    project.temporary.mkdir()
    return project


@pytest.fixture
def small_disks() -> None:
    """What the tests need that fill a disk."""
    if reason := disks.no_small_disk():
        pytest.skip(reason)


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What makes system calls fail."""
    if sys.platform != "linux":
        pytest.skip("the library that makes system calls fail is written for Linux")
    library = disks.shim(tmp_path_factory.mktemp("shim"))
    if library is None:
        pytest.skip("there is no C compiler")
    return library


def research(project: Project, *arguments: str, **environment: str) -> Session:
    return project.research("--autoresearch-sandbox=none", *arguments, **environment)


def on_disk(project: Project, place: Path, what: str, when: str, size: int = disks.SMALL) -> Session:
    """A session that has *place* on a disk of its own, to which something happens at some time."""
    place.mkdir(exist_ok=True)
    project.inside = disks.on_small_disk(project, place, size)
    session = research(project, FAULT_WHEN=when, FAULT_WHAT=what, FAULT_PLACE=str(place))
    project.inside = []
    return session


def broken(project: Project, shim: Path, what: str, when: str, *arguments: str) -> Session:
    """A session in which a system call fails from some time on."""
    trigger = str(project.temporary / "trigger")
    library = {"LD_PRELOAD": str(shim), "FAULT_PLACE": trigger}
    session = research(project, *arguments, FAULT_WHEN=when, FAULT_WHAT=what, **library)
    assert Path(trigger).exists(), session.screen
    return session


def ends_in_one_line(session: Session, *parts: str) -> None:
    """Assert that the session has failed as it should, and that what it says of the refs is so."""
    session.exits(1).hides("Traceback", "INTERNALERROR", "ERROR ", "FAILED", "raise ")
    project = session.project
    [line] = [line for line in session.screen.splitlines() if "start again" in line]
    assert all(part in line for part in parts), line
    numbers = [int(name) for name in project.refs() if name.isdigit()]
    assert numbers == list(range(len(numbers)))
    if stored := re.search(r"every trial up to (\d+) is stored|the baseline is stored", line):
        assert int(stored[1] or 0) == max(numbers), line
    subprocess.run(["git", "fsck", "--strict"], cwd=project.path, check=True, capture_output=True)


def goes_on(project: Project) -> None:
    """Assert that the campaign comes to what it would have come to."""
    before = project.refs()
    research(project).exits(0).decides("kept", "kept").leaves_clean()
    after = project.refs()
    assert before.items() <= after.items() | {("claim", before.get("claim"))}
    assert project.git("log", "-1", "--format=%H", "autoresearch/t~1") == after["0002"]  # below the claim
    assert "LR = 0.06" in project.script.read_text()
    untracked = project.git("status", "--porcelain", "--untracked-files=all").splitlines()
    assert untracked == ["?? results.tsv"]


# How many pages are left decides what fails: the log of the trial, an object, or a ref.
@pytest.mark.parametrize("pages", [0, 3, 6])
@pytest.mark.usefixtures("small_disks")
def test_a_repository_that_is_full(campaign: Project, pages: int) -> None:
    session = on_disk(campaign, campaign.path, f"full but for {pages}", BEFORE)
    ends_in_one_line(session, FULL)
    goes_on(campaign)


@pytest.mark.parametrize("pages", [0, 8, 9])
@pytest.mark.usefixtures("small_disks")
def test_a_repository_that_is_full_from_the_beginning(campaign: Project, pages: int) -> None:
    session = on_disk(campaign, campaign.path, f"full but for {pages}", BEGINNING)
    ends_in_one_line(session, FULL)
    goes_on(campaign)


@pytest.mark.usefixtures("small_disks")
def test_a_branch_that_cannot_be_checked_out_for_want_of_room(campaign: Project) -> None:
    research(campaign, "--autoresearch-trials=1").exits(0)
    campaign.git("checkout", "--quiet", "main")
    session = on_disk(campaign, campaign.path, "full but for 1", BEGINNING)
    ends_in_one_line(session, FULL, "git switch")
    assert campaign.git("branch", "--show-current") == "main"
    assert campaign.git("status", "--porcelain") == "?? results.tsv"
    goes_on(campaign)


@pytest.mark.parametrize(("pages", "when"), [(1, BEGINNING), (0, BEFORE), (1, AFTER)])
@pytest.mark.usefixtures("small_disks")
def test_a_full_folder_for_temporary_files(campaign: Project, pages: int, when: str) -> None:
    session = on_disk(campaign, campaign.temporary, f"full but for {pages}", when)
    ends_in_one_line(session, FULL, str(campaign.temporary))
    session.hides("CRASHED")
    goes_on(campaign)


FILLING = """LR = 0.06
with open("filler", "wb", buffering=0) as filler:
    try:
        while True:
            filler.write(bytes(1 << 16))
    except OSError:
        pass
print("x" * (1 << 20), flush=True)
"""


@pytest.mark.usefixtures("small_disks")
def test_a_run_that_fills_the_disk_has_crashed(campaign: Project) -> None:
    """What the harness has no room for is the log; without the run's folder there is room again."""
    campaign.proposes(("LR = 0.04", FILLING), ("LR = 0.04", "LR = 0.05")).commit("Propose something else")
    campaign.temporary = campaign.path / ".git" / "tmp"
    campaign.temporary.mkdir(exist_ok=True)
    session = on_disk(campaign, campaign.path, "", "", size=48 << 20).exits(0)
    session.decides("crashed", "kept").shows("CRASHED (it filled the disk)").leaves_clean()


@pytest.mark.usefixtures("small_disks")
def test_a_full_folder_of_the_campaign(campaign: Project) -> None:
    session = on_disk(campaign, campaign.path / ".autoresearch", "full but for 0", BEGINNING)
    ends_in_one_line(session, FULL, "/.autoresearch/.gitignore")
    goes_on(campaign)


@pytest.mark.parametrize(("name", "when"), [(".", BEGINNING), (".", AFTER), (".autoresearch", AFTER)])
@pytest.mark.usefixtures("small_disks")
def test_what_is_read_only(campaign: Project, name: str, when: str) -> None:
    session = on_disk(campaign, campaign.path / name, "read-only", when)
    # git does not give the reason for a folder of a ref that it cannot make.
    first = (name, when) == (".", BEGINNING)
    reason = "unable to create directory" if first else "Read-only file system"
    ends_in_one_line(session, "the disk cannot be written to: ", reason, "make it writable")
    goes_on(campaign)


@pytest.mark.parametrize(
    "what",
    [
        "write .git/objects/",
        "fsync .git/objects/",
        "write .git/logs/refs/heads/autoresearch/t",
        "rename .git/refs/heads/autoresearch/t",
        "rename .git/refs/autoresearch/t/0002",
        "rename .git/index",
        "write experiment/train.py",
        "rename experiment/train.py",
        "write ledger.jsonl",
        "write results.tsv",
    ],
)
def test_a_disk_that_fails(campaign: Project, shim: Path, what: str) -> None:
    ends_in_one_line(broken(campaign, shim, what, AFTER), "the disk fails: ", "check the device")
    goes_on(campaign)


def test_a_log_that_fails_is_no_fault_of_the_trial(campaign: Project, shim: Path) -> None:
    session = broken(campaign, shim, "write logs/0002.log", BEFORE).hides("CRASHED")
    ends_in_one_line(session, "the disk fails: Input/output error", "logs/0002.log", "up to 1 is stored")


def test_what_follows_from_the_refs_does_not_count_for_the_verdict(campaign: Project, shim: Path) -> None:
    session = broken(campaign, shim, "write ledger.jsonl", AFTER)
    session.exits(1).shows("2 trials: 2 kept", "0002  0.9600", "every trial up to 2 is stored").leaves_clean()
    assert sorted(campaign.refs()) == ["0000", "0001", "0002"]


def test_the_log_of_a_ref_is_no_reason_to_stop(campaign: Project, shim: Path) -> None:
    broken(campaign, shim, "write .git/logs/HEAD", AFTER).exits(0).decides("kept", "kept").leaves_clean()


def test_files_of_pytests_own_are_not_in_the_way(campaign: Project, shim: Path) -> None:
    session = broken(campaign, shim, "write junit.xml", AFTER, "--junitxml=junit.xml")
    session.exits(1).shows("pytest could not write its own files", "2 trials: 2 kept")
    session.decides("kept", "kept").hides("Traceback", "INTERNALERROR")


# Without a sandbox, for which the disk would be the same; *folder* is the run's own.
HUNGRY = """LR = 0.05
with open("large", "wb") as file:
    while True:
        file.write(bytes(1 << 16))
"""


@pytest.mark.usefixtures("small_disks")
def test_a_run_without_room_is_not_judged(campaign: Project) -> None:
    (campaign.path / "conftest.py").write_text(
        (campaign.path / "conftest.py").read_text().replace(repr(EDITS[0][1]), repr(HUNGRY))
    )
    session = on_disk(campaign.commit(), campaign.temporary, "", "never")
    ends_in_one_line(session, FULL, "a run failed", "No space left on device")
    session.hides("CRASHED")


@pytest.mark.usefixtures("small_disks")
def test_a_run_that_fills_the_disk_itself_has_crashed(campaign: Project) -> None:
    (campaign.path / "conftest.py").write_text(
        (campaign.path / "conftest.py").read_text().replace(repr(EDITS[0][1]), repr(HUNGRY))
    )
    session = on_disk(campaign.commit(), campaign.temporary, "", "never", size=24 << 20)
    session.exits(0).shows('CRASHED (exit code 1: "OSError: [Errno 28] No space left on device')


@pytest.mark.usefixtures("small_disks")
def test_an_item_of_an_ordinary_session_fails_in_one_line(campaign: Project) -> None:
    research(campaign, "--autoresearch-trials=0").exits(0)
    campaign.temporary.joinpath("x").touch()
    campaign.inside = disks.on_small_disk(campaign, campaign.temporary)
    session = campaign.pytest(
        "experiment/train.py::baseline",
        "--autoresearch-sandbox=none",
        FAULT_WHEN=BEGINNING,
        FAULT_WHAT="full but for 2",
        FAULT_PLACE=str(campaign.temporary),
    )
    session.exits(1).shows("baseline FAILED", FULL, str(campaign.temporary)).hides("Traceback", "raise ")


COPY = """
import os, sys
from pytest_autoresearch.runs.session import _own_copy
try:
    _own_copy(os.open(sys.argv[1], os.O_RDONLY))
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.usefixtures("small_disks")
def test_a_model_that_cannot_be_copied_is_not_refused(campaign: Project, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.write_bytes(bytes(16 * disks.PAGE))
    inside = disks.on_small_disk(campaign, campaign.temporary, 8 * disks.PAGE)
    command = [*inside, "env", f"TMPDIR={campaign.temporary}", sys.executable, "-c", COPY, str(model)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.startswith(f"StorageError {FULL}No space left on device: '{campaign.temporary}'")
