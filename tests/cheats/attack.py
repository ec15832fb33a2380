"""Try scripts against the harness: each is a trial of a real campaign, and what became of it is printed.

    python -m tests.cheats.attack SCRIPT.py [SCRIPT.py ...]

ATTACKING.md says what there is to break. The campaign runs in a scratch git project outside the repository.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from pytest_autoresearch.text import MARK, single_line
from tests.cheats.campaign import HERE, MINIATURE, PLACE, Campaign, Combination, Trial, conduct

EXPERIMENTS = {"embedded": HERE.parents[1] / "experiment", "miniature": MINIATURE}
BUDGET = 6.0  # seconds of training; noise is large then, and what looks at files or the clock needs no more
LAST_LINES = 40  # of a log
LONGEST = 6 * 3600.0  # seconds: whoever tries many scripts may leave them overnight


def main() -> int:
    """Run the campaign, print what became of it, and return pytest's exit code."""
    asked = _arguments()
    folder = Path(tempfile.mkdtemp(prefix="autoresearch-attack-", dir=PLACE))
    folder.chmod(0o755)  # for the ordinary user
    try:
        _prepare(asked.experiment, folder / "data")
        options = ["-o", "autoresearch_give_up_after=never"]
        if asked.experiment == "embedded":
            options.append(f"--autoresearch-time-budget={asked.budget:g}")
        campaign = conduct(
            folder / f"{folder.name}-campaign",
            folder / "data",
            Combination(asked.enforcer, asked.user),
            asked.scripts,
            experiment=EXPERIMENTS[asked.experiment],
            options=options,
            longest=LONGEST,
        )
    finally:
        if not asked.keep:
            shutil.rmtree(folder)
    kept = [f"kept: {folder}"] if asked.keep else []
    sys.stdout.write("\n".join([*_report(campaign, asked.scripts), *kept, ""]))
    return campaign.code


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.cheats.attack", description=__doc__)
    parser.add_argument("scripts", nargs="+", type=Path, metavar="SCRIPT.py")
    parser.add_argument("--enforcer", choices=["auto", "bwrap", "landlock", "none"], default="auto")
    parser.add_argument("--user", choices=["own", "ordinary"], default="own", help="who runs pytest")
    parser.add_argument("--experiment", choices=list(EXPERIMENTS), default="embedded")
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds, of the embedded experiment")
    parser.add_argument("--keep", action="store_true", help="leave the scratch project, and say where it is")
    asked = parser.parse_args()
    if len({script.stem for script in asked.scripts}) < len(asked.scripts):
        parser.error("two scripts have the same name")
    if missing := [str(script) for script in asked.scripts if not script.is_file()]:
        parser.error(f"there is no file {missing[0]}")
    return asked


def _prepare(experiment: str, data: Path) -> None:
    """Make the data of an experiment, on the CPU."""
    data.mkdir()
    program = HERE / "reference.py" if experiment == "miniature" else EXPERIMENTS[experiment] / "prepare.py"
    environment = {**os.environ, "AUTORESEARCH_CACHE": str(data), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, program], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stderr)


def _report(campaign: Campaign, scripts: Sequence[Path]) -> Iterator[str]:
    if campaign.code or len(campaign.trials) < len(scripts):
        yield campaign.screen
    for script in scripts:
        if script.stem in campaign.trials:
            yield from _trial(script.stem, campaign.trials[script.stem])
    yield "== the campaign"
    # Which enforcer it was, what the baseline came to, and whether the claim passed.
    told = ("sandbox: ", "hidden: ", "experiment/train.py::baseline ", "experiment/train.py::claim ")
    yield from (line for line in campaign.screen.splitlines() if line.startswith(told))
    yield f"changed: {_listed(campaign.changed)}"
    yield f"left: {_listed(campaign.left)}"


def _trial(name: str, trial: Trial) -> Iterator[str]:
    yield f"== {name}"
    yield f"verdict: {trial.verdict}"
    yield f"reason: {trial.reason}"
    yield f"score: {'none' if trial.score is None else trial.score}, judged against {trial.baseline}"
    yield f"left: {_listed(trial.traces)}"
    lines = trial.log.splitlines()
    yield f"log, {min(len(lines), LAST_LINES)} of {len(lines)} lines:"
    yield from (f"  {MARK}{single_line(line)}" for line in lines[-LAST_LINES:])


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "nothing"


if __name__ == "__main__":
    sys.exit(main())
