"""The trailers of a campaign's commits: all that the ledger knows and the tree does not."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import cast

from pytest_autoresearch.records.measurement import Measurement, format_exact, format_score, mean_score
from pytest_autoresearch.records.proposal import Usage
from pytest_autoresearch.records.trial import VERDICTS, Trial, Verdict
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


def measurement_trailers(measurements: Sequence[Measurement]) -> list[str]:
    """Return the trust and the sandbox of the runs, and one trailer for each."""
    kinds = [f"{run.trust}, {run.sandbox}" for run in measurements]
    return [
        *(f"Trust: {kind}" for kind in dict.fromkeys(kinds)),
        *(f"Measurement: {json.dumps(run.to_json())}" for run in measurements),
    ]


def parse_measurements(
    trailers: Mapping[str, list[str]], name: str = "Measurement"
) -> tuple[Measurement, ...]:
    """Rebuild the runs from what :func:`measurement_trailers` gave."""
    return tuple(Measurement.from_json(json.loads(text)) for text in trailers.get(name, []))


def trailers_of(message: str) -> dict[str, list[str]]:
    """Return the ``Key: value`` lines of a message's last paragraph."""
    trailers: dict[str, list[str]] = {}
    for line in message.strip().rsplit("\n\n", 1)[-1].splitlines():
        key, _, value = line.partition(": ")
        trailers.setdefault(key, []).append(value)
    return trailers


def trial_message(trial: Trial, metric: str) -> str:
    """Return the message of the trial's commit: all that the ledger knows and the tree does not."""
    trailers = [f"Trial: {trial.number}", f"Verdict: {trial.verdict}"]
    if trial.score is not None:
        trailers.append(f"{trailer_name(metric)}: {format_exact(trial.score)}")
    trailers += [
        f"Incumbent-Score: {format_exact(trial.incumbent_score)}",
        *measurement_trailers(trial.measurements),
    ]
    if trial.code_size_change:
        trailers.append(f"Code-Size-Change: {trial.code_size_change:+d}")
    trailers += [f"{INCUMBENT_RUN}: {json.dumps(run.to_json())}" for run in trial.incumbent_runs]
    trailers += [f"Crash: {crash}" for crash in trial.crashes]
    trailers += [f"Agent: {trial.agent}"] * bool(trial.agent)
    trailers += [f"Hypothesis: {trial.hypothesis}"] * bool(trial.hypothesis)
    trailers += [f"Usage: {json.dumps(trial.usage.to_json())}"] * (trial.usage != Usage())
    trailers += [f"Declined-By: {reason}" for reason in trial.declined_by]
    # They follow from the script, but not at once: thousands of trials would take minutes to read.
    trailers += [f"Constants: {json.dumps(dict(trial.constants))}", f"Digest: {trial.digest}"]
    trailers.append(f"Tree: {trial.tree}")
    return _message(_inert(trial.description), _inert(trial.reason), *trailers)


def header_message(
    metric: str, machine: str, runs: Sequence[Measurement], terms: Sequence[tuple[str, str]]
) -> str:
    """Return the message of a campaign's header, or of a baseline that was measured anew.

    Args:
        metric: the name of the score.
        machine: a name for it.
        runs: of the baseline.
        terms: trailers with what stays the same for the whole campaign.
    """
    score, count = mean_score(runs), len(runs)
    return _message(
        f"Measure the baseline on {single_line(machine, 60)}",
        f"{metric} {format_score(score)} in {count} {'run' if count == 1 else 'runs'}",
        "Trial: 0",
        f"{trailer_name(metric)}: {format_exact(score)}",
        *(f"{name}: {value}" for name, value in terms),
        *measurement_trailers(runs),
    )


def claim_message(
    metric: str,
    claim: str,
    *,
    trials: int,
    gain: float,
    margin: float,
    start_commit: str,
    start: Sequence[Measurement],
    final: Sequence[Measurement],
) -> str:
    """Return the message of a claim.

    Args:
        metric: the name of the score.
        claim: the gain with its margin, for the subject.
        trials: the number of the last trial.
        gain: the difference of the means.
        margin: half the width of its interval.
        start_commit: the commit that the campaign started from.
        start: fresh runs of it.
        final: fresh runs of the incumbent.
    """
    before, after = (statistics.fmean(run.claimed for run in runs) for runs in (start, final))
    return _message(
        f"Claim {metric} {claim}",
        f"{format_score(before)} -> {format_score(after)} in {len(final)} fresh runs each",
        f"Trials: {trials}",
        f"Gain: {format_exact(gain)}",
        f"Margin: {format_exact(margin)}",
        f"Start: {start_commit}",
        *(f"{INCUMBENT_RUN}: {json.dumps(run.to_json())}" for run in start),
        *measurement_trailers(final),
    )


def parse_trial(message: str, commit: str) -> Trial:
    """Rebuild a trial from its commit.

    Raises:
        ValueError: the message is not one that :func:`trial_message` wrote.
    """
    description, reason, trailers = _parts(message)
    # The message is untrusted: anybody with write access may have made it.
    texts = {
        name: tuple(single_line(text, LONGEST) for text in trailers.get(name, ()))
        for name in ("Agent", "Hypothesis", "Declined-By", "Crash")
    }
    try:
        return Trial(
            number=int(trailers["Trial"][0]),
            description=description,
            verdict=_verdict(trailers["Verdict"][0]),
            reason=reason,
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
            usage=_usage(trailers["Usage"][0]) if "Usage" in trailers else Usage(),
            declined_by=texts["Declined-By"],
            crashes=texts["Crash"],
        )
    except (AttributeError, KeyError, OverflowError, TypeError) as error:
        msg = f"commit {commit} is not a trial: {error}"
        raise ValueError(msg) from error


def _message(subject: str, body: str, *trailers: str) -> str:
    return "\n".join([subject, "", body, "", *trailers, ""])


def _parts(message: str) -> tuple[str, str, dict[str, list[str]]]:
    description, _, rest = message.partition("\n\n")
    reason = rest.partition("\n\n")[0]
    return single_line(description, LONGEST), single_line(reason, LONGEST), trailers_of(message)


def _usage(text: str) -> Usage:
    usage = Usage(**json.loads(text))
    if not usage.is_sound:
        msg = f"{usage} cannot be"
        raise ValueError(msg)
    return usage


def _inert(line: str) -> str:
    """Return *line* with a space before what git would take for a comment, or for a message's end."""
    return f" {line}" if line.startswith(("#", "---")) else line


def _verdict(text: str) -> Verdict:
    if text not in VERDICTS:
        msg = f"{text!r} is not a verdict"
        raise ValueError(msg)
    return cast("Verdict", text)
