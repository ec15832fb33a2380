"""Whether a campaign of ten thousand trials goes on as it began.

    python benchmarks/soak.py [--trials 10000]

A toy experiment runs for as long as Python takes to start, without a sandbox, so that what is seen is the
loop's own. The agent is a hook of a few lines that proposes a new value for one constant; every fiftieth
trial is better and is kept. Told are the seconds that a trial takes among the first thousand and among the
last, on the clock and of the processor, all processes together, and the memory of pytest; how long it takes
to go on with the campaign, which measures the baseline once, before and after ``git gc``; and whether the
ledger is the same then. Ten thousand trials take about half an hour.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

WINDOW = 1000  # trials that are compared
SLOWER = 1.5  # times as long as the first trials the last ones may take
RESUMED = 2.0  # seconds that going on may take
PLUGINS = (
    "-p",
    "pytest_timeout",
    "-p",
    "pytest_autoresearch.plugin.hooks",
    "-p",
    "no:cacheprovider",
)  # no others
SCRIPT = """\
X = 0  # what is tried
BEST = 0.0  # what was found

print("step 1 | loss: 2.0")
print(f"val_bpb: {2 - BEST + X * 1e-9:.9f}")
"""
AGENT = """
import time
from pathlib import Path

import psutil
from pytest_autoresearch import Proposal

SEEN = Path(".autoresearch/seen.txt")


def pytest_autoresearch_propose(briefing):
    lines = briefing.script.splitlines()
    lines[0] = f"X = {briefing.number}  # what is tried"
    if briefing.number % 50 == 0:
        lines[1] = f"BEST = {briefing.number / 20000}  # what was found"
    return Proposal({briefing.script_name: "\\n".join(lines) + "\\n"}, f"X = {briefing.number}")


def pytest_autoresearch_decided(trial):
    times = psutil.Process().cpu_times()
    used = times.user + times.system + times.children_user + times.children_system
    with SEEN.open("a") as file:
        print(time.monotonic(), used, psutil.Process().memory_info().rss / 2**20, file=file)
"""


def main() -> int:
    """Print the figures, and return 1 if one of them is too large."""
    parser = argparse.ArgumentParser(description="a campaign of very many trials")
    parser.add_argument("--trials", type=int, default=10_000, help="(default: 10000)")
    trials = parser.parse_args().trials
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        pytest(folder, trials)
        state = folder / ".autoresearch"
        rows = [[float(word) for word in line.split()] for line in (state / "seen.txt").open()]
        assert len(rows) == trials, f"{len(rows)} of {trials} trials"
        clock, processor, memory = zip(*rows, strict=True)
        window = min(WINDOW, trials // 4)
        slower = flat("seconds a trial", clock, window)
        flat("processor seconds a trial", processor, window)
        grown = (memory[-1] - memory[window]) / (trials - window) * 1024
        print(f"memory: {memory[window]:.0f} MB after {window}, {memory[-1]:.0f} MB in the end: ", end="")
        print(f"{grown:.1f} KB a trial")
        ledger = (state / "soak" / "ledger.jsonl").read_text()
        before, size = pytest(folder, 0), stored(folder)
        git(folder, "gc", "--quiet", "--prune=now")
        after = pytest(folder, 0)
        print(f"going on takes {before:.2f} s, and {after:.2f} s after git gc: {size} -> {stored(folder)}")
        same = ledger == (state / "soak" / "ledger.jsonl").read_text()
        print(f"the ledger is {'the same' if same else 'ANOTHER'}")
    return int(slower > SLOWER or max(before, after) > RESUMED or not same)


def flat(what: str, seen: Sequence[float], window: int) -> float:
    """Print what trials took among the first and among the last, and return the ratio."""
    first, last = (seen[window] - seen[0]) / window, (seen[-1] - seen[-1 - window]) / window
    print(f"{what}: {first:.3f} among the first {window} of {len(seen)}, {last:.3f} among the last")
    return last / first


def prepare(folder: Path) -> None:
    """Write the experiment."""
    (folder / "experiment").mkdir()
    (folder / "experiment" / "train.py").write_text(SCRIPT)
    (folder / "conftest.py").write_text(AGENT)
    (folder / "pytest.ini").write_text("[pytest]\ntestpaths = experiment\n")
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message=Begin")


def pytest(folder: Path, trials: int) -> float:
    """Let the campaign have so many trials more, and return the seconds that it took."""
    options = ["--autoresearch-tag=soak", f"--autoresearch-trials={trials}", "--autoresearch-sandbox=none"]
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *PLUGINS, "--autoresearch", *options],
        cwd=folder,
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return time.monotonic() - began


def git(folder: Path, *arguments: str) -> str:
    """Run git, and return what it prints."""
    identity = ["-c", "user.name=benchmark", "-c", "user.email=benchmark@localhost"]
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout


def stored(folder: Path) -> str:
    """Return what the repository takes on the disk."""
    done = subprocess.run(["du", "-sh", folder / ".git"], check=True, capture_output=True, text=True)
    return done.stdout.split()[0]


if __name__ == "__main__":
    sys.exit(main())
