"""How often the strict setting keeps null edits, and how often improvements of three noise widths.

    python benchmarks/verdicts.py [--budget 6] [--decisions 20]

It makes real runs of the embedded experiment. The null edits look real and add a branch that is never taken;
all of them go through one campaign. The improvement is planted: the incumbent stops after a share of its
budget, and the proposal uses all of it. The share is chosen from a few runs, to cost about three standard
deviations of one run; the actual cost is printed in the end, from all runs. Each planted decision is one
``pytest experiment/train.py``, and every five of them have a baseline of their own. Twenty decisions of each
kind take about half an hour on a CPU.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from pytest_autoresearch.judging.noise import Noise

ROOT = Path(__file__).resolve().parent.parent
STRICT = 0.95
WIDTHS = 3.0  # of the noise that the planted gain is to have
FIRST_SHARE = 0.6  # of the budget, to see what a share costs
PILOTS = 6  # runs that this is seen from
PER_BASELINE = 5  # decisions
MOST_NULLS, LEAST_GAINS = 0.1, 0.85  # the target: shares that are kept
AGENT = """
from pytest_autoresearch import Proposal


def pytest_autoresearch_propose(briefing):
    if briefing.number > {decisions}:
        return None
    old = "    loss, batch = train_step("
    new = f"    if step > 10**{{5 + briefing.number}}:\\n            multiplier *= 0.5\\n    " + old
    return Proposal(briefing.edit(old, new), f"Halve rates after 10**{{5 + briefing.number}} steps")
"""


class Clone:
    """A git repository with the embedded experiment, in which *share* of the budget is used."""

    def __init__(self, folder: Path, budget: float, share: float = 1.0) -> None:
        self.folder = folder
        self._budget = budget
        shutil.copytree(
            ROOT / "experiment", folder / "experiment", ignore=shutil.ignore_patterns("__pycache__")
        )
        (folder / "pytest.ini").write_text("[pytest]\ntestpaths = experiment\n")
        (folder / ".gitignore").write_text("__pycache__/\n")
        self.write(share)
        self.git("init", "--quiet")
        self.commit()

    def git(self, *arguments: str) -> None:
        """Run git."""
        identity = ["-c", "user.name=benchmark", "-c", "user.email=benchmark@localhost"]
        subprocess.run(["git", *identity, *arguments], cwd=self.folder, check=True)

    def commit(self) -> None:
        """Commit everything."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message=Begin")

    def write(self, share: float) -> None:
        """Write a train.py that uses *share* of its budget, its schedule with it."""
        text = (ROOT / "experiment" / "train.py").read_text()
        for old, new in (
            ("while used < TIME_BUDGET:", "while used < SHARE * TIME_BUDGET:"),
            ("progress = used / TIME_BUDGET", "progress = used / TIME_BUDGET / SHARE"),
            ("\nDEPTH = ", f"\nSHARE = {share:.4f}  # of the budget\nDEPTH = "),
        ):
            assert text.count(old) == 1, f"train.py has changed: tell this script where it says {old!r}"
            text = text.replace(old, new)
        (self.folder / "experiment" / "train.py").write_text(text)

    def pytest(self, *arguments: str) -> int:
        """Run pytest with what it prints on the screen, and return its exit code."""
        options = [f"--autoresearch-time-budget={self._budget:g}", "-p", "no:cacheprovider"]
        return subprocess.run(
            [sys.executable, "-m", "pytest", *arguments, *options], cwd=self.folder, check=False
        ).returncode

    def baseline(self) -> None:
        """Measure the baseline, anew if there is one."""
        code = self.pytest("--autoresearch", "--autoresearch-trials=0", "--autoresearch-tag=measure")
        assert code == 0, f"the baseline could not be measured: exit code {code}"

    def scores(self) -> list[float]:
        """Return the scores of the baseline."""
        [record] = json.loads((self.folder / "experiment" / "baseline.json").read_text())["platforms"]
        return [run["score"] for run in record["measurements"]]


def nulls(folder: Path, budget: float, decisions: int) -> int:
    """Return how many edits that do nothing are kept."""
    clone = Clone(folder, budget)
    (folder / "conftest.py").write_text(AGENT.format(decisions=decisions))
    clone.commit()
    clone.pytest("--autoresearch", "--autoresearch-tag=nulls", f"--autoresearch-confidence={STRICT}")
    ledger = (folder / ".autoresearch" / "nulls" / "ledger.jsonl").read_text().splitlines()
    entries: list[dict[str, Any]] = [json.loads(line) for line in ledger]
    assert len(entries) == decisions, "the campaign did not come to its end"
    for entry in entries:
        assert entry["verdict"] in ("kept", "discarded"), entry
    return sum(entry["verdict"] == "kept" for entry in entries)


def pilot(folder: Path, budget: float) -> tuple[float, float]:
    """Return the share of the budget that costs WIDTHS, and the noise, from a few runs of either share."""
    found: list[list[float]] = []
    for share in (1.0, FIRST_SHARE):
        scores: list[float] = []
        while len(scores) < PILOTS:
            clone = Clone(folder / f"pilot-{share}-{len(scores)}", budget, share)
            clone.baseline()
            scores += clone.scores()
        found.append(scores)
    noise = Noise.of(*found)
    cost = (statistics.fmean(found[1]) - statistics.fmean(found[0])) / -math.log(FIRST_SHARE)
    return math.exp(-WIDTHS * noise.std / cost), noise.std


def planted(
    folder: Path, budget: float, decisions: int, share: float
) -> tuple[int, list[float], list[float]]:
    """Return how many real gains are kept, and the scores of the incumbent and of the proposals."""
    kept, before, after = 0, [], []
    for number in range(decisions):
        if number % PER_BASELINE == 0:
            clone = Clone(folder / f"planted-{number}", budget, share)
            clone.baseline()
            before += clone.scores()
            clone.write(1.0)
        report = clone.folder / "junit.xml"
        code = clone.pytest(
            "experiment/train.py", f"--autoresearch-confidence={STRICT}", f"--junitxml={report}"
        )
        kept += code == 0
        after += scores_in(report.read_text())
    return kept, before, after


def scores_in(report: str) -> list[float]:
    """Return the mean score that a JUnit report names."""
    _, _, rest = report.partition('name="val_bpb" value="')
    return [float(rest.partition('"')[0])]


def main() -> int:
    """Run everything, print the figures, and return 1 if they miss their target."""
    parser = argparse.ArgumentParser(description="null edits and planted gains, on the embedded experiment")
    parser.add_argument("--budget", type=float, default=6.0, help="seconds of training a run (default: 6)")
    parser.add_argument("--decisions", type=int, default=20, help="of either kind (default: 20)")
    parser.add_argument("--only", choices=["nulls", "planted"], help="one kind alone")
    options = parser.parse_args()
    decisions, missed = options.decisions, False
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.only != "planted":
            false = nulls(folder / "nulls", options.budget, decisions)
            print(f"null edits kept:     {false} of {decisions}, at a confidence of {STRICT}", flush=True)
            missed |= false > MOST_NULLS * decisions
        if options.only != "nulls":
            share, noise = pilot(folder, options.budget)
            true, before, after = planted(folder, options.budget, decisions, share)
            gain = statistics.fmean(before) - statistics.fmean(after)
            print(f"noise of a run:      {noise:.4f}")
            print(f"planted gain:        {gain:.4f}, {gain / noise:.1f} widths, {share:.2f} of the budget")
            print(f"planted gains kept:  {true} of {decisions}, at a confidence of {STRICT}")
            missed |= true < LEAST_GAINS * decisions
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
