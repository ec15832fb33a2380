"""How much better the tuner makes the embedded experiment, measured afresh.

    python benchmarks/campaign.py [--trials 30]

It clones the checkout it stands in, runs a campaign there, and then measures the script that the
campaign began with and the one it ended with again, in turn and with seeds that no verdict has seen:
the run that won a comparison is a lucky one more often than not. Thirty trials take about twenty
minutes on a CPU.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from pytest_autoresearch.measuring.run import Conditions, measure

ROOT = Path(__file__).resolve().parent.parent
TAG = "benchmark"
REPEATS = 3
FRESH = 900_000  # seeds of a campaign are far below
LIMIT = 600.0  # seconds a run may take; a busy machine stretches them


def git(folder: Path, *arguments: str) -> str:
    """Run git and return what it prints."""
    command = ["git", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def campaign(folder: Path, trials: int) -> None:
    """Run the campaign with its progress on the screen."""
    options = ["--autoresearch", f"--autoresearch-trials={trials}", f"--autoresearch-tag={TAG}"]
    subprocess.run([sys.executable, "-m", "pytest", *options], cwd=folder, check=True)


def remeasure(folder: Path) -> tuple[list[float], list[float]]:
    """Return fresh scores of the first and of the last script, measured in turn."""
    fixed = git(folder, "show", "HEAD:experiment/prepare.py")
    scores: tuple[list[float], list[float]] = ([], [])
    for seed in range(FRESH, FRESH + REPEATS):
        for revision, found in zip((f"refs/autoresearch/{TAG}/0000", "HEAD"), scores, strict=True):
            files = {"train.py": git(folder, "show", f"{revision}:experiment/train.py"), "prepare.py": fixed}
            run = measure(files, "train.py", Conditions("val_bpb", None), seed=seed, limit=LIMIT)
            found.append(run.score)
    return scores


def main() -> None:
    """Run everything and print the figures."""
    parser = argparse.ArgumentParser(description="a campaign on the embedded experiment, measured afresh")
    parser.add_argument("--trials", type=int, default=30)
    trials = parser.parse_args().trials
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "clone"
        git(ROOT, "clone", "--quiet", str(ROOT), str(folder))
        campaign(folder, trials)
        before, after = remeasure(folder)
        print(git(folder, "log", "--reverse", "--format=%h %s", f"refs/autoresearch/{TAG}/0000.."))
    print(f"fresh val_bpb, {REPEATS} runs each, in turn")
    for title, scores in (("start", before), ("end", after)):
        print(f"{title:<5}  {statistics.fmean(scores):.4f} ± {statistics.stdev(scores):.4f}  {scores}")
    print(f"gain   {statistics.fmean(before) - statistics.fmean(after):.4f}")


if __name__ == "__main__":
    main()
