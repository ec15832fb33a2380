"""How much of the time something trains, while an agent thinks for long.

    python benchmarks/waiting.py [--run 30] [--agent 6] [--trials 12]

A real campaign with a command-line agent that thinks for a fifth of the time that a run takes, as one of a
minute does beside runs of five. Runs sleep instead of training. One proposal in seven is an improvement.
Counted is the share of the time from the end of the first trial to that of the last in which a run goes on;
with ``--agent=0`` what is missing is what the harness itself takes. Ten minutes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

# Its constants stand apart, so that what changes one can be merged with what has changed another.
SCRIPT = """\
    import time

    A = 0


    B = 0


    C = 0

    time.sleep({run})
    print(f"val_bpb: {{1 - 0.01 * A + 0.01 * (B + C):.4f}}")
    """
AGENT = """\
    import pathlib, re, time

    time.sleep({agent})
    count = pathlib.Path({count!r})
    number = len(count.read_text()) if count.exists() else 0
    count.write_text("x" * (number + 1))
    script = pathlib.Path("experiment/train.py")
    name = "A" if number % 7 == 3 else "BC"[number % 2]
    text = re.sub(rf"(?m)^{{name}} = .*", f"{{name}} = {{number + 1}}", script.read_text())
    script.write_text(text)
    print(f"{{name}} = {{number + 1}}")
    """
CONFTEST = """\
    import json, time

    def pytest_autoresearch_decided(trial):
        runs = trial.measurements + trial.incumbent_runs
        line = {{"at": time.time(), "busy": sum(run.wall_seconds for run in runs), "verdict": trial.verdict}}
        print(json.dumps(line), file=open({told!r}, "a"))
    """


def lay_out(folder: Path, run: float, agent: float) -> Path:
    """Make a project in *folder*, and return where its trials will be told."""
    told, count = folder / "told.jsonl", folder / "count"
    project = folder / "project"
    (project / "experiment").mkdir(parents=True)
    for name, text in (
        ("project/experiment/train.py", SCRIPT.format(run=run)),
        ("project/conftest.py", CONFTEST.format(told=str(told))),
        ("agent.py", AGENT.format(agent=agent, count=str(count))),
    ):
        (folder / name).write_text(textwrap.dedent(text))
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    for arguments in (
        ["init", "--quiet"],
        ["add", "--all"],
        [*identity, "commit", "--quiet", "--message=Begin"],
    ):
        subprocess.run(["git", *arguments], cwd=project, check=True)
    return told


def main() -> None:
    """Run the campaign and print the share."""
    parser = argparse.ArgumentParser(description="the share of the time in which something trains")
    parser.add_argument("--run", type=float, default=30.0, help="seconds of a run")
    parser.add_argument("--agent", type=float, default=6.0, help="seconds that a proposal takes")
    parser.add_argument("--trials", type=int, default=12)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        told = lay_out(folder, options.run, options.agent)
        command = [
            *(sys.executable, "-m", "pytest", "--autoresearch", f"--autoresearch-trials={options.trials}"),
            f"--autoresearch-agent={sys.executable} {folder / 'agent.py'}",
        ]
        subprocess.run(command, cwd=folder / "project", check=True, stdout=sys.stderr)
        trials = [json.loads(line) for line in told.read_text().splitlines()]
    report(trials)


def report(trials: list[dict[str, float | str]]) -> None:
    """Print what part of the time a run went on, from the first trial's end to the last one's."""
    first, *others = trials
    span = float(others[-1]["at"]) - float(first["at"])
    busy = sum(float(trial["busy"]) for trial in others)
    kept = sum(trial["verdict"] == "kept" for trial in trials)
    print("---")
    print(f"trials:  {len(trials)}, {kept} kept")
    print(f"busy:    {busy / span:.1%} of {span:.0f} s")


if __name__ == "__main__":
    main()
