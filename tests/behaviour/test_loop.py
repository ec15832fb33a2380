"""``pytest --autoresearch`` keeps what improves and drops the rest."""

from __future__ import annotations

import subprocess

import pytest

from tests.project import Project

GAIN = ("LR = 0.04", "LR = 0.05")
LOSS = ("LR = 0.05", "LR = 0.09")
ONE_MORE = ("BATCH = 64", "BATCH = 32")


def test_gains_are_committed_and_the_rest_is_dropped(project: Project) -> None:
    session = project.proposes(GAIN, LOSS, ONE_MORE).research()
    session.exits(0).decides("kept", "discarded", "kept").leaves_clean()
    session.shows("::baseline PASSED (0.9800", "KEPT (0.9700", "DISCARDED (0.9900", "KEPT (0.9650")
    session.shows("::claim PASSED (val_bpb -0.0150 ± 0.0000 in 2 fresh runs each)")
    session.shows("3 trials: 2 kept, 1 discarded")
    session.shows("val_bpb 0.9800 -> 0.9650 (-0.0150 ± 0.0000) in 2 fresh runs each")
    session.counts("2 passed, 2 kept, 1 discarded")
    session.shows("kept trials: git log refs/autoresearch/t/0000..autoresearch/t")
    assert project.subjects()[0] == "Claim val_bpb -0.0150 ± 0.0000"
    assert project.subjects()[1:4] == [
        "BATCH = 64 -> BATCH = 32",
        "LR = 0.04 -> LR = 0.05",
        "Measure the baseline on toy processor",
    ]
    assert "LR = 0.05" in project.script.read_text()
    assert "BATCH = 32" in project.script.read_text()


def test_a_kept_commit_changes_only_the_script_and_its_record(project: Project) -> None:
    project.proposes(GAIN).research().exits(0)
    kept = project.refs()["0001"]
    changed = project.git("diff", "--name-only", f"{kept}^", kept).splitlines()
    assert changed == ["experiment/baseline.json", "experiment/train.py"]


def test_a_commit_tells_what_was_measured(project: Project) -> None:
    project.proposes(GAIN, LOSS).research().exits(0)
    trailers = "--format=%(trailers:key={},valueonly,separator=)"
    for number, score, verdict in (("0001", "0.970000", "kept"), ("0002", "0.990000", "discarded")):
        ref = f"refs/autoresearch/t/{number}"
        found = [
            project.git("log", "-1", trailers.format(key), ref)
            for key in ("Trial", "Val-Bpb", "Incumbent-Score", "Verdict")
        ]
        assert found == [str(int(number)), score, "0.980000" if number == "0001" else "0.970000", verdict]


def test_a_dropped_trial_can_still_be_seen(project: Project) -> None:
    project.proposes(GAIN, LOSS).research().exits(0)
    assert "+LR = 0.09" in project.git("show", "refs/autoresearch/t/0002")
    assert project.git("rev-parse", "refs/autoresearch/t/0002^") == project.refs()["0001"]


def test_results_have_the_columns_of_upstream(project: Project) -> None:
    project.proposes(GAIN, ("LR = 0.05", "LR = oops")).research().exits(0)
    header, first, kept, crashed = project.rows()
    assert header == ["commit", "val_bpb", "memory_gb", "status", "description"]
    assert first[1:] == ["0.980000", "0.5", "keep", "baseline"]
    assert kept == [project.refs()["0001"][:7], "0.970000", "0.5", "keep", "LR = 0.04 -> LR = 0.05"]
    assert crashed[1:4] == ["0.000000", "0.0", "crash"]


def test_the_record_holds_what_was_measured(project: Project) -> None:
    project.research("--autoresearch-trials=0", "--autoresearch-agent=tuner").exits(0)
    [record] = project.records
    platform = {"device": "cpu", "device_name": "toy processor", "time_budget": "1", "trust": "reported"}
    assert record["platform"] == platform
    assert record["mean"] == 0.98
    assert record["noise_std"] == 0
    assert [run["score"] for run in record["measurements"]] == [0.98, 0.98, 0.98]
    assert len({run["seed"] for run in record["measurements"]}) == 3
    assert project.git("show", f"{record['commit']}:experiment/train.py") + "\n" == project.script.read_text()
    project.proposes(GAIN).research(tag="u").exits(0)
    [record] = project.records
    assert record["commit"] == "refs/autoresearch/u/0001"
    only = project.git("ls-tree", record["commit"], "experiment/train.py").replace("experiment/", "")
    made = subprocess.run(
        ["git", "mktree"], cwd=project.path, input=only, capture_output=True, text=True, check=True
    )
    assert made.stdout.strip() == record["tree"] == project.ledger("u")[0]["tree"]


def test_a_campaign_is_continued_under_its_tag(project: Project) -> None:
    project.proposes(GAIN, LOSS, ONE_MORE)
    project.research("--autoresearch-trials=1").exits(0).decides("kept")
    project.git("checkout", "--quiet", "main")
    session = project.research().exits(0).decides("kept", "discarded", "kept")
    session.shows(
        "::baseline PASSED (0.9700, stored 0.9700", "trial[0002-", "trial[0003-", "0.9800 -> 0.9650"
    )
    session.hides("trial[0001-")


def test_the_branch_names_the_campaign_to_continue(project: Project) -> None:
    project.proposes(GAIN, ONE_MORE).research("--autoresearch-trials=1").exits(0)
    project.pytest("--autoresearch").exits(0).decides("kept", "kept").shows("campaign: autoresearch/t,")


def test_lost_files_are_rebuilt_from_the_refs(project: Project) -> None:
    project.proposes(GAIN, LOSS).research().exits(0)
    ledger, results = project.ledger(), project.rows()
    (project.path / ".autoresearch" / "t" / "ledger.jsonl").write_text('{"torn')
    (project.path / "results.tsv").unlink()
    project.research().exits(0).decides("kept", "discarded")
    assert project.ledger() == ledger
    assert project.rows() == results


def test_a_script_that_was_tried_is_refused(project: Project) -> None:
    session = project.proposes(("LR = 0.04", "LR = 0.09"), ("LR = 0.04", "LR = 0.09")).research().exits(0)
    session.decides("discarded", "refused").shows("REFUSED (the same script as trial 1")


def test_a_maximized_metric_is_kept_when_it_rises(pytester: pytest.Pytester) -> None:
    script = 'GOOD = 1\nprint(f"accuracy: {GOOD / 10}")\n'
    project = Project(pytester, script=script, prepare=None)
    project.write(pytest_ini="[pytest]\nautoresearch_metric = accuracy\nautoresearch_direction = maximize\n")
    project.proposes(("GOOD = 1", "GOOD = 2"), ("GOOD = 2", "GOOD = 0"))
    session = project.research().exits(0).decides("kept", "discarded").shows("accuracy, higher is better")
    session.shows("accuracy 0.1000 -> 0.2000")
    assert project.rows()[0][1] == "accuracy"
    assert "Accuracy: 0.200000" in project.git("log", "-1", "--format=%B", project.refs()["0001"])


def test_the_trials_end_after_the_hours(project: Project) -> None:
    project.proposes(*[("LR = 0.04", f"LR = 0.{number}") for number in range(10, 99)])
    project.research("--autoresearch-hours=0.00003").exits(0)
    assert len(project.ledger()) < 20


def test_the_budget_of_the_human_reaches_the_script(pytester: pytest.Pytester) -> None:
    script = 'import os\nprint("val_bpb:", os.environ["AUTORESEARCH_TIME_BUDGET"])\n'
    project = Project(pytester, script=script)
    project.proposes().research("--autoresearch-time-budget=7.5").exits(0).shows("PASSED (7.5000")


def test_ten_trials_without_a_score_end_the_campaign(project: Project) -> None:
    project.proposes(*[("LR = 0.04", f"LR = oops{number}") for number in range(20)])
    session = project.research().exits(1).decides(*["crashed"] * 10)
    session.shows("10 trials in a row gave no score")


FAILS = "\nraise SystemExit(1)"


def test_another_number_of_trials_without_a_score_can_end_a_campaign(project: Project) -> None:
    project.write(pytest_ini="[pytest]\nautoresearch_give_up_after = 2\n")
    edits = [("LR = 0.04", f"LR = 0.{number}{FAILS}") for number in (50, 51, 52)]
    session = project.proposes(*edits).research().exits(1).decides("crashed", "crashed")
    session.shows("2 trials in a row gave no score, the last one: exit code 1")


def test_a_campaign_may_never_be_given_up(project: Project) -> None:
    project.write(pytest_ini="[pytest]\nautoresearch_give_up_after = never\n")
    edits = [("LR = 0.04", f"LR = 0.{number}{FAILS}") for number in range(50, 61)]
    project.proposes(*edits).research("--autoresearch-sandbox=none").exits(0).decides(*["crashed"] * 11)


def test_a_number_of_trials_is_a_number(project: Project) -> None:
    project.write(pytest_ini="[pytest]\nautoresearch_give_up_after = 0\n").commit()
    session = project.research().exits(4)
    session.shows("autoresearch_give_up_after is a whole number from 1 on or 'never', not '0'")
