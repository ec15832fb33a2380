"""The CUDA path, on a machine with one NVIDIA GPU, which may have no network: two parts of six minutes.

    python benchmarks/gpu.py 1 --out OUT [--upstream FOLDER]
    python benchmarks/gpu.py 2 --out OUT

Part 1 tries the sandboxes and compares train.py with upstream's script; part 2 makes runs as a campaign
does. Each stage writes what it has found to OUT when it ends, so a part that is cut off leaves its figures.
The text is made up: only speeds, memory and differences of val_bpb mean anything. docs/results/gpu.md lists
the stages, and says how to carry what they need. With --dry-run a CPU tries the check itself, and nothing is
measured.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from gpu_check.command import Found
from gpu_check.goals import goals, table
from gpu_check.stages import Stages

# The stages of a part, and the seconds that each may take: it is not begun if fewer are left.
PARTS = {
    1: {
        "machine": 10,
        "data": 45,
        "sandboxes": 40,
        "ours": 110,
        "upstream": 80,
        "warm": 30,
        "attention": 30,
        "ours_with_masks": 60,
    },
    2: {
        "machine": 10,
        "data": 5,
        "sealed_bwrap": 110,
        "campaign_bwrap": 80,
        "campaign_landlock": 80,
        "sealed_landlock": 70,
    },
}
ALWAYS = "machine", "data"  # the others stand on them
SECONDS = 360  # of a part


def main() -> int:
    """Run a part, print the table of goals, and return 1 if a stage failed."""
    options = _options()
    began = time.monotonic()
    options.out.mkdir(parents=True, exist_ok=True)
    stages = Stages(
        place=options.work.resolve(),
        log=options.out.resolve() / f"part{options.part}.log",
        scripts=options.upstream and options.upstream.resolve(),
        deadline=began + options.seconds,
        is_dry=options.dry_run,
    )
    found: dict[str, Found] = {}
    for name, seconds in PARTS[options.part].items():
        if options.only and name not in (*options.only, *ALWAYS):
            continue
        start = time.monotonic()
        if began + options.seconds < start + seconds:
            found[name] = {"not run": f"it may take {seconds} s, which are not left"}
        else:
            found[name] = _found(stages, name)
        found[name]["took_s"] = round(time.monotonic() - start, 1)
        result = {"part": options.part, "dry_run": options.dry_run, "stages": found, "goals": goals(found)}
        (options.out / f"part{options.part}.json").write_text(json.dumps(result, indent=1) + "\n")
        print(f"[{time.monotonic() - began:3.0f} s] {name}: {json.dumps(found[name])}", flush=True)
    if options.dry_run:
        print("a dry run: no figure above means anything")
    else:
        print(table(goals(found)))
    return int(any("failed" in stage for stage in found.values()))


def _found(stages: Stages, name: str) -> Found:
    try:
        found: Found = getattr(stages, name)()
    except Exception as error:  # noqa: BLE001 - the stages after it may do all the same
        return {"failed": f"{type(error).__name__}: {error}"}
    return found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="the CUDA path, on a machine with a GPU")
    parser.add_argument("part", type=int, choices=PARTS)
    parser.add_argument("--out", type=Path, required=True, help="the folder for what is found")
    parser.add_argument("--upstream", type=Path, help="a folder with upstream's prepare.py and train.py")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path(tempfile.gettempdir(), "gpu-check"),
        help="the folder for data and caches; the parts share it (default: %(default)s)",
    )
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of the part (default: %(default)s)")
    parser.add_argument("--only", nargs="+", default=(), metavar="STAGE", help="besides machine and data")
    parser.add_argument("--dry-run", action="store_true", help="on a CPU, with everything tiny")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
