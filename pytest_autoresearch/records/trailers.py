"""The trailers of a campaign's commits: all that the ledger knows and the tree does not."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from pytest_autoresearch.records.measurement import Measurement, format_exact, format_score, mean_score
from pytest_autoresearch.records.proposal import Usage
from pytest_autoresearch.records.trial import VERDICTS, Trial
from pytest_autoresearch.text import single_line

INCUMBENT_RUN = "Incumbent-Run"  # the trailer of a run of the incumbent
RESERVED = {  # trailers that a metric may be called like
    *("Agent", "Code-Size-Change", "Constants", "Crash", "Declined-By", "Digest", "Direction", "Editable"),
    *("Experiment", "Gain", "Hypothesis", "Incumbent-Score", INCUMBENT_RUN, "Margin", "Measurement"),
    *("Metric", "Platform", "Start", "Tree", "Trial", "Trials", "Trust", "Usage", "Verdict"),
}
LONGEST = 400  # characters of any text in an entry


def trailer_name(metric: str) -> str:
    """Return a metric's name as a git trailer of its own: ``Val-Bpb`` for ``val_bpb``."""
    words = [word.capitalize() for word in re.split(r"[^A-Za-z0-9]+", metric) if word]
    name = "-".join(words) or "Score"
    return f"{name}-Score" if name in RESERVED else name


def message_of(subject: str, text: str, trailers: Mapping[str, Sequence[object]]) -> str:
    """Return the message of a commit; each trailer is there once for each of its values."""
    lines = [f"{name}: {value}" for name, values in trailers.items() for value in values]
    return "\n".join([_inert(subject), "", _inert(text), "", *lines, ""])


def of_runs(runs: Sequence[Measurement]) -> dict[str, list[str]]:
    """Return the trailers with the trust and the sandbox of the runs, and with each run."""
    kinds = dict.fromkeys(f"{run.trust}, {run.sandbox}" for run in runs)
    return {"Trust": list(kinds), "Measurement": as_json(runs)}


def as_json(runs: Sequence[Measurement]) -> list[str]:
    """Return each run as the value of a trailer."""
    return [json.dumps(run.to_json()) for run in runs]


def parse_measurements(
    trailers: Mapping[str, list[str]], name: str = "Measurement"
) -> tuple[Measurement, ...]:
    """Rebuild the runs from what :func:`as_json` gave."""
    return tuple(Measurement.from_json(json.loads(text)) for text in trailers.get(name, []))


def trailers_of(message: str) -> dict[str, list[str]]:
    """Return the ``Key: value`` lines of a message's last paragraph."""
    trailers: dict[str, list[str]] = {}
    for line in message.strip().rsplit("\n\n", 1)[-1].splitlines():
        key, _, value = line.partition(": ")
        trailers.setdefault(key, []).append(value)
    return trailers


def trial_message(trial: Trial, metric: str) -> str:
    """Return the message of the trial's commit."""
    trailers: dict[str, Sequence[object]] = {
        "Trial": [trial.number],
        "Verdict": [trial.verdict],
        trailer_name(metric): [] if trial.score is None else [format_exact(trial.score)],
        "Incumbent-Score": [format_exact(trial.incumbent_score)],
        **of_runs(trial.measurements),
        "Code-Size-Change": [f"{trial.code_size_change:+d}"] if trial.code_size_change else [],
        INCUMBENT_RUN: as_json(trial.incumbent_runs),
        "Crash": trial.crashes,
        "Agent": [trial.agent] if trial.agent else [],
        "Hypothesis": [trial.hypothesis] if trial.hypothesis else [],
        "Usage": [json.dumps(trial.usage.to_json())] if trial.usage != Usage() else [],
        "Declined-By": trial.declined_by,
        # They follow from the script, but not at once: thousands of trials would take minutes to read.
        "Constants": [json.dumps(dict(trial.constants))],
        "Digest": [trial.digest],
        "Tree": [trial.tree],
    }
    return message_of(trial.description, trial.reason, trailers)


def header_message(
    metric: str, machine: str, runs: Sequence[Measurement], terms: Mapping[str, Sequence[str]]
) -> str:
    """Return the message of a campaign's header, or of a baseline that was measured anew.

    The trailers *terms* stay the same for the whole campaign.
    """
    score, count = mean_score(runs), len(runs)
    return message_of(
        f"Measure the baseline on {single_line(machine, 60)}",
        f"{metric} {format_score(score)} in {count} {'run' if count == 1 else 'runs'}",
        {"Trial": [0], trailer_name(metric): [format_exact(score)], **terms, **of_runs(runs)},
    )


def parse_trial(message: str, commit: str) -> Trial:
    """Rebuild a trial from its commit.

    Raises:
        ValueError: the message is not one that :func:`trial_message` wrote.
    """
    # The message is untrusted: anybody with write access may have made it.
    description, reason, *_ = *message.split("\n\n", 2), "", ""
    trailers = trailers_of(message)
    texts = {
        name: tuple(single_line(text, LONGEST) for text in trailers.get(name, ()))
        for name in ("Agent", "Hypothesis", "Declined-By", "Crash")
    }
    try:
        verdict = trailers["Verdict"][0]
        if verdict not in VERDICTS:
            raise ValueError(f"{verdict!r} is not a verdict")
        return Trial(
            number=int(trailers["Trial"][0]),
            description=single_line(description, LONGEST),
            verdict=verdict,
            reason=single_line(reason, LONGEST),
            commit=commit,
            tree=trailers["Tree"][0],
            incumbent_score=float(trailers["Incumbent-Score"][0]),
            measurements=parse_measurements(trailers),
            constants=dict(json.loads(trailers["Constants"][0]).items()),
            digest=trailers["Digest"][0],
            incumbent_runs=parse_measurements(trailers, INCUMBENT_RUN),
            code_size_change=int(trailers.get("Code-Size-Change", ["0"])[0]),
            agent="".join(texts["Agent"][:1]),
            hypothesis="".join(texts["Hypothesis"][:1]),
            usage=Usage.from_json(trailers.get("Usage", ["{}"])[0]),
            declined_by=texts["Declined-By"],
            crashes=texts["Crash"],
        )
    except (AttributeError, KeyError, OverflowError, TypeError) as error:
        raise ValueError(f"commit {commit} is not a trial: {error}") from error


def _inert(line: str) -> str:
    """Return *line* with a space before what git would take for a comment, or for a message's end."""
    return f" {line}" if line.startswith(("#", "---")) else line
