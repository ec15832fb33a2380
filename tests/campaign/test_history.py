"""A campaign is read from its refs alone, and written without pytest, an experiment or a run."""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pytest_autoresearch.campaign import writer as writing
from pytest_autoresearch.campaign.git import Repository
from pytest_autoresearch.campaign.history import CampaignHistory
from pytest_autoresearch.campaign.opening import CampaignOpener
from pytest_autoresearch.campaign.refs import CampaignRefs
from pytest_autoresearch.campaign.writer import CampaignWriter
from pytest_autoresearch.errors import RepositoryError
from pytest_autoresearch.judging.judge import JudgePolicy
from pytest_autoresearch.records.measurement import Measurement
from pytest_autoresearch.records.proposal import Proposal, Usage
from pytest_autoresearch.records.spec import ExperimentSpec
from pytest_autoresearch.records.trial import Decision, Verdict
from tests.project import Project

PLATFORM = {"device": "cpu", "device_name": "toy processor"}


def runs(*scores: float) -> tuple[Measurement, ...]:
    return tuple(Measurement(score, seed=1, wall_seconds=1.0, curve=(score,)) for score in scores)


def opened(project: Project, *editable: str, scores: tuple[float, ...] = (1.0, 1.01, 0.99)) -> CampaignWriter:
    """Start or continue campaign t, whose baseline has these *scores*."""
    spec = ExperimentSpec(project.script.parent, editable=editable or ("train.py",))
    repository, state = Repository(spec), project.path / ".autoresearch" / "t"
    opener = CampaignOpener(repository, "t", state, project.path / "results.tsv")
    opener.check()
    checked_out = opener.check_out(PLATFORM)
    return checked_out.start(runs(*scores), JudgePolicy(), device="cpu", keep_logs=None)


def tried(
    writer: CampaignWriter, verdict: Verdict, *scores: float, source: str = "", cost: float = 0.0
) -> None:
    number = writer.history.next_number
    files = {"train.py": source or f"LR = {number}\n"}
    proposal = Proposal(files, f"change {number}", usage=Usage(cost=cost))
    writer.add_trial(number, proposal, Decision(verdict, "a reason", runs(*scores)))


def read(project: Project, *editable: str) -> CampaignHistory:
    spec = ExperimentSpec(project.script.parent, editable=editable or ("train.py",))
    return CampaignHistory.load(Repository(spec), "t")


def same(one: CampaignHistory, other: CampaignHistory) -> bool:
    """Tell whether two histories agree, the estimate of the incumbent as it is written, in ten digits."""
    alike = one.incumbent.to_json() == other.incumbent.to_json()
    return alike and dataclasses.replace(one, incumbent=other.incumbent) == other


@pytest.fixture
def clean(project: Project) -> Project:
    project.write(_gitignore="__pycache__/\nresults.tsv\n")
    return project.commit()


def test_what_was_written_is_read_again(clean: Project) -> None:
    start = clean.git("rev-parse", "HEAD")
    writer = opened(clean)
    tried(writer, "discarded", 1.2, cost=0.25)
    tried(writer, "kept", 0.8, 0.81, cost=0.5)
    tried(writer, "crashed", source="LR = \n")
    tried(writer, "discarded", 0.9)
    writer.add_claim(runs(1.0, 1.0), runs(0.8, 0.8))
    known = writer.history
    clean.git("checkout", "--quiet", "main")
    history = read(clean)  # from another branch, and without a lock
    assert same(history, known)
    assert [trial.verdict for trial in history.trials] == ["discarded", "kept", "crashed", "discarded"]
    assert [trial.is_scored for trial in history.trials] == [True, True, False, True]
    assert [trial.number for trial in history.kept] == [2]
    assert history.header.start == start
    assert history.header.files == {"train.py": clean.git("show", "main:experiment/train.py") + "\n"}
    assert history.usage == Usage(cost=0.75)
    assert history.next_number == 5
    assert history.claim is not None
    assert history.claim.gain == pytest.approx(-0.2)
    assert not history.is_to_claim
    assert history.judge_state(JudgePolicy()) == writer.state
    assert [pair.incumbent_points for pair in history.curve_pairs()] == [(1.0,), (1.0,), (0.8,)]
    assert history.trial_like({"train.py": "LR = 2  # as trial 2\n"}) == 2
    assert history.trial_like(history.header.files) == 0
    assert history.trial_like({"train.py": "LR = 9\n"}) is None
    with pytest.raises(RepositoryError, match="there is no campaign u"):
        CampaignHistory.load(Repository(ExperimentSpec(clean.script.parent)), "u")


def test_a_writer_that_continues_knows_what_the_last_one_knew(clean: Project) -> None:
    first = opened(clean)
    tried(first, "discarded", 1.2)
    tried(first, "kept", 0.8)
    second = opened(clean, scores=(0.82,))
    assert same(second.history, first.history)
    assert second.state == first.state
    tried(second, "discarded", 1.2)
    assert second.history.trials[-1].incumbent_runs == runs(0.82)  # which no other commit holds
    assert read(clean).judge_state(JudgePolicy()) == second.state


def test_a_version_that_the_user_commits_is_the_incumbent(clean: Project) -> None:
    first = opened(clean)
    tried(first, "discarded", 1.2)
    clean.script.write_text("LR = 7\n")
    clean.git("commit", "--quiet", "--all", "--message=By hand")
    unmeasured = read(clean)
    assert unmeasured.incumbent == first.history.incumbent
    second = opened(clean, scores=(0.7, 0.71, 0.69))
    assert list(second.history.replaced) == [2]
    assert second.state.incumbent.mean == pytest.approx(0.7)
    tried(second, "discarded", 1.1)
    assert read(clean).judge_state(JudgePolicy()) == second.state
    assert same(read(clean), second.history)


def of_files(monkeypatch: pytest.MonkeyPatch, files: Mapping[str, str]) -> None:
    monkeypatch.setattr(writing, "proposed", lambda *_: files)


def test_a_trial_may_change_several_files(clean: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    globs = ("train.py", "model/*.py")
    writer = opened(clean, *globs)
    of_files(monkeypatch, {"train.py": "LR = 1\n", "model/net.py": "WIDTH = 2\n"})
    tried(writer, "kept", 0.5)
    net = clean.script.parent / "model" / "net.py"
    assert net.read_text() == "WIDTH = 2\n"
    assert clean.script.read_text() == "LR = 1\n"
    assert clean.is_clean()
    assert dict(writer.files) == {"train.py": "LR = 1\n", "model/net.py": "WIDTH = 2\n"}
    of_files(monkeypatch, {"model/net.py": "WIDTH = 3\n"})
    tried(writer, "discarded", 0.9)
    [kept, dropped] = read(clean, *globs).trials
    assert net.read_text() == "WIDTH = 2\n"
    assert clean.git("show", f"{dropped.commit}:experiment/train.py") == "LR = 1"
    assert clean.git("diff", "--name-only", kept.commit, dropped.commit) == "experiment/model/net.py"
    assert len({kept.tree, dropped.tree, writer.history.header.baseline.tree}) == 3
    assert opened(clean, *globs, scores=(0.5,)).files == writer.files


def test_a_new_file_of_the_user_is_not_overwritten_by_a_keep(
    clean: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = opened(clean, "*.py")
    mine = clean.script.parent / "net.py"
    mine.write_text("mine\n")
    of_files(monkeypatch, {"net.py": "WIDTH = 2\n"})
    with pytest.raises(RepositoryError, match=r"experiment/net.py changed during trial 1, which is stored"):
        tried(writer, "kept", 0.5)
    assert mine.read_text() == "mine\n"
    assert clean.git("show", "refs/autoresearch/t/0001:experiment/net.py") == "WIDTH = 2"
    with pytest.raises(RepositoryError, match=r"uncommitted changes in experiment/"):
        opened(clean, "*.py")
    mine.unlink()
    opened(clean, "*.py", scores=(0.5,))
    assert mine.read_text() == "WIDTH = 2\n"
    assert clean.is_clean()


def test_what_git_cannot_store_is_stored_as_the_incumbent(clean: Project) -> None:
    writer = opened(clean)
    tried(writer, "refused", source="LR = '\ud800'\n")
    assert writer.history.trials[0].tree == writer.history.header.baseline.tree
    assert clean.git("diff", "--name-only", "refs/autoresearch/t/0001^", "refs/autoresearch/t/0001") == ""


def test_git_is_written_by_the_main_thread_alone(clean: Project) -> None:
    writer = opened(clean)
    repository = writer.branch.repository
    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(RuntimeError, match="only the main thread"):
            pool.submit(tried, writer, "kept", 0.5).result()
        with pytest.raises(RuntimeError, match="only the main thread"):
            pool.submit(writer.costs.add, Usage(cost=1.0)).result()
        with pytest.raises(AssertionError, match="the main thread alone"):
            pool.submit(repository.move, {"refs/heads/other": (None, repository.head())}).result()
    assert sorted(clean.refs()) == ["0000"]
    assert clean.is_clean()


def test_a_half_done_keep_is_finished(clean: Project) -> None:
    writer = opened(clean)
    tried(writer, "kept", 0.5)
    refs = CampaignRefs("t")
    clean.git("update-ref", "-d", refs.trial(1))
    clean.git("checkout", "--quiet", "HEAD^", "--", "experiment")  # and the files have not followed
    spec = ExperimentSpec(clean.script.parent)
    state = clean.path / ".autoresearch/t"
    opener = CampaignOpener(Repository(spec), "t", state, clean.path / "results.tsv")
    opener.check()
    assert opener.check_out(PLATFORM).recovered == (
        "experiment/baseline.json, experiment/train.py brought to what the branch's last commit had stored",
        "trial 1 was kept, and now has its ref too",
    )
    assert clean.refs()["0001"] == clean.git("rev-parse", "HEAD")
    assert clean.is_clean()


def test_git_of_this_process_is_not_changed(clean: Project) -> None:
    """GitPython's object is shared by everybody who has the repository."""
    repository = Repository(ExperimentSpec(clean.script.parent))
    program = repository.git._program
    repository.commit("HEAD", {"a.py": "x = 1\n"}, "Change it")
    repository.status()
    assert not program.environment()


@pytest.mark.parametrize(
    "ref", ["refs/autoresearch/t/1", "refs/autoresearch/t/notes", "refs/autoresearch/u/0001"]
)
def test_a_ref_of_another_form_is_no_trial(ref: str) -> None:
    with pytest.raises(RepositoryError, match=f"{ref} is no trial: delete it with 'git update-ref -d {ref}'"):
        CampaignRefs("t").number_of(ref)


def test_a_ref_is_read_back_as_what_it_was_written_for() -> None:
    refs = CampaignRefs("t")
    for number in (0, 1, 9_999, 10_000, 123_456):
        assert refs.number_of(refs.trial(number)) == number
        assert refs.log_number_of(refs.log(number)) == number
    assert refs.log_number_of("refs/autoresearch/t/log/notes") is None


def test_no_ref_is_spelt_anywhere_else() -> None:
    package = Path(__file__).parents[2] / "pytest_autoresearch"
    pattern = "refs/autoresearch|refs/heads/autoresearch"
    found = subprocess.run(
        ["grep", "-rlE", pattern, "--include=*.py", package], capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == [str(package / "campaign" / "refs.py")]
