"""What training longer than the budget is worth, beside what it is charged.

    python benchmarks/overtime.py [--budgets 2 4 8 16 32] [--seeds 3]

It trains the embedded experiment by hand with each budget, and tells by which share of itself the score falls
for a budget more, at the pace between two budgets: the logarithm of one score over the other, by that of one
budget over the other. Five minutes on a CPU.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

from pytest_autoresearch.runs.session import OVERTIME_CHARGE

SCRIPT = Path(__file__).resolve().parent.parent / "experiment" / "train.py"


def val_bpb(budget: float, seed: int) -> float:
    """Train once by hand and return the score, in bits per byte."""
    told = {"AUTORESEARCH_TIME_BUDGET": f"{budget:g}", "AUTORESEARCH_SEED": str(seed)}
    ran = subprocess.run(
        [sys.executable, SCRIPT], env=os.environ | told, capture_output=True, text=True, check=True
    )
    return float(re.findall(r"^val_bpb: +(.+)$", ran.stdout, re.MULTILINE)[0])


def main() -> int:
    """Print the table; return 1 if training longer is worth as much as it is charged."""
    parser = argparse.ArgumentParser(description="what overtime is worth")
    parser.add_argument("--budgets", type=float, nargs="+", default=[2, 4, 8, 16, 32], help="seconds each")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    scores = {
        budget: statistics.fmean(val_bpb(budget, seed) for seed in range(1, arguments.seeds + 1))
        for budget in sorted(arguments.budgets)
    }
    shares = []
    for (short, worse), (long, better) in itertools.pairwise(scores.items()):
        shares.append(math.log(worse / better) / math.log(long / short))
        print(
            f"{short:4g} -> {long:4g} s: val_bpb {worse:.4f} -> {better:.4f}, {shares[-1]:.2f} a budget more"
        )
    print(f"charged: {OVERTIME_CHARGE:.2f} a budget more")
    return int(max(shares) >= OVERTIME_CHARGE)


if __name__ == "__main__":
    sys.exit(main())
