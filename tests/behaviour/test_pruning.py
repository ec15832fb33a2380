"""``--autoresearch-prune`` ends a run whose loss is hopeless, once it has learned what is."""

from __future__ import annotations

import pytest

from tests.project import Project

SCRIPT = """\
import time

LR = 0.90
DELAY = 0

for tenth in range(1, 10):
    print(f"step {tenth} ({10 * tenth}.0%) | loss: {LR + 1 / tenth:.4f}")
    if tenth == 5:
        time.sleep(DELAY)
print(f"val_bpb: {LR:.6f}")
"""
GAINS = [(f"LR = 0.{tens}0", f"LR = 0.{tens - 1}0") for tens in (9, 8, 7, 6, 5)]
HOPELESS = ("LR = 0.40", "LR = 3.0")
PRUNE = "--autoresearch-prune"


@pytest.fixture
def curved(pytester: pytest.Pytester) -> Project:
    """Return a scratch project whose script prints the loss at each tenth of its budget."""
    return Project(pytester, script=SCRIPT)


def test_a_hopeless_run_is_ended(curved: Project) -> None:
    gains = ["kept"] * 5
    session = curved.proposes(*GAINS, HOPELESS).research().exits(0).decides(*gains, "discarded")
    replay = "pruning would have ended 1 of 6 runs and none of 5 kept ones"
    session.shows(f"of the trials that ran to their end {replay}").hides("pruned:")
    kept, curve = curved.ledger()[0], [0.8 + 1 / tenth for tenth in range(1, 10)]
    assert kept["measurements"][0]["curve"] == pytest.approx(curve, abs=1e-4)
    assert '"curve": [1.8, 1.3, ' in curved.message("refs/autoresearch/t/0001")
    assert curved.ledger()[5]["measurements"][0]["score"] == 3.0

    # The margins follow from the commits alone; and the run is not waited for.
    (curved.path / ".autoresearch" / "t" / "ledger.jsonl").unlink()
    ended = ("LR = 0.40\nDELAY = 0", "LR = 4.0\nDELAY = 60")
    session = curved.proposes(*GAINS, HOPELESS, ended).research(PRUNE).exits(0)
    session.decides(*gains, "discarded", "discarded")
    session.shows("DISCARDED (at 30 % its loss is 3.6000 above the incumbent's, the margin is 0.0000)")
    session.shows("pruned: 1 of 7 trials ended early", "of the trials that ran to their end pruning would")
    last = curved.ledger()[6]
    assert (last["measurements"], last["verdict"]) == ([], "discarded")
    assert curved.rows()[8][1:4] == ["0.000000", "0.0", "discard"]
    assert "Val-Bpb" not in curved.message("refs/autoresearch/t/0007")


def test_a_campaign_that_has_learned_little_ends_no_run(curved: Project) -> None:
    session = curved.proposes(*GAINS[:4], ("LR = 0.50", "LR = 3.0")).research(PRUNE).exits(0)
    session.decides("kept", "kept", "kept", "kept", "discarded").shows("DISCARDED (3.0000").hides("pruned:")


def test_a_good_run_goes_on(curved: Project) -> None:
    session = curved.proposes(*GAINS, ("LR = 0.40", "LR = 0.30")).research(PRUNE).exits(0)
    session.decides(*["kept"] * 6).hides("pruned:", "would have ended")
