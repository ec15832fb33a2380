"""What a sandbox costs: how long a program in it takes to say its first word, and to be gone with all of it.

python benchmarks/sandbox.py [--starts 20]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from pytest_autoresearch.errors import SandboxUnavailable
from pytest_autoresearch.sandbox import enforcers, launch
from pytest_autoresearch.sandbox.policy import Enforcer, Policy

WORD = ["/bin/echo", "started"]


def once(enforcer: Enforcer) -> tuple[float, float]:
    """Return the milliseconds until the first word, and those from there to the end."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        with launch.start(WORD, Policy(Path(folder)), enforcer, {}) as run:
            assert run.output.read(1) == b"s"
            started = time.perf_counter()
        return 1000 * (started - began), 1000 * (time.perf_counter() - started)


def bare() -> float:
    """Return the milliseconds until the first word of the same program without any of this."""
    began = time.perf_counter()
    with subprocess.Popen(WORD, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None
        assert process.stdout.read(1) == b"s"
        return 1000 * (time.perf_counter() - began)


def main() -> None:
    """Print one line an enforcer."""
    parser = argparse.ArgumentParser(description="what a sandbox costs")
    parser.add_argument("--starts", type=int, default=20)
    starts = parser.parse_args().starts
    print("milliseconds    start   slowest   end")
    print(f"no process more  {statistics.median(bare() for _ in range(starts)):4.1f}")
    for enforcer in ("bwrap", "landlock", "none"):
        try:
            enforcers.choose(enforcer)
        except SandboxUnavailable as error:
            print(f"{enforcer:<15}  {error}")
            continue
        begun, ended = zip(*(once(enforcer) for _ in range(starts)), strict=True)
        figures = statistics.median(begun), max(begun), statistics.median(ended)
        print("{:<15}  {:4.1f}   {:7.1f}  {:4.1f}".format(enforcer, *figures))


if __name__ == "__main__":
    main()
