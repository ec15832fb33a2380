"""What a sandbox costs: from starting a program that does nothing until it has ended, and all of it is gone.

python benchmarks/sandbox.py [--starts 20]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from pytest_autoresearch.measuring import sandbox


def once(enforcer: sandbox.Enforcer) -> float:
    """Return the milliseconds that one start takes."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        with sandbox.start(["/bin/true"], sandbox.Policy(Path(folder)), enforcer, {}) as run:
            assert run.wait(10) == 0
        return 1000 * (time.perf_counter() - began)


def main() -> None:
    """Print one line an enforcer."""
    parser = argparse.ArgumentParser(description="what a sandbox costs")
    parser.add_argument("--starts", type=int, default=20)
    starts = parser.parse_args().starts
    print("milliseconds  median  slowest")
    for enforcer in ("bwrap", "landlock", "none"):
        try:
            sandbox.choose(enforcer)
        except sandbox.Unavailable as error:
            print(f"{enforcer:<12}  {error}")
            continue
        taken = [once(enforcer) for _ in range(starts)]
        print(f"{enforcer:<12}  {statistics.median(taken):6.1f}  {max(taken):7.1f}")


if __name__ == "__main__":
    main()
