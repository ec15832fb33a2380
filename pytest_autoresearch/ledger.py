"""What was tried."""

from __future__ import annotations

import dataclasses
import json
import math
import operator
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, cast, get_args

from pytest_autoresearch.disk import writing
from pytest_autoresearch.measuring.measurement import Measurement, exact, mean_score
from pytest_autoresearch.oneline import one_line

Verdict = Literal["kept", "discarded", "crashed", "out of memory", "timeout", "refused"]
VERDICTS: tuple[str, ...] = get_args(Verdict)
Value = float | int | str | bool

AGAIN = "Incumbent"  # the trailer of a run that the incumbent had
TAKEN = {  # trailers that a metric may be called like
    *("Agent", "Baseline", "Constants", "Crash", "Direction", "Essence", "Experiment", "Hypothesis", AGAIN),
    *(
        "Measurement",
        "Metric",
        "Passed",
        "Platform",
        "Script",
        "Tokens",
        "Trial",
        "Trust",
        "Usage",
        "Verdict",
    ),
}
LONGEST = 400  # characters of any text in an entry


@dataclasses.dataclass(frozen=True, slots=True)
class Usage:
    """What a model was asked for proposals: tokens, as its maker counts them, and what they cost."""

    calls: int = 0
    input_tokens: int = 0
    cache_write_tokens: int = 0
    cache_read_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0
    """US dollars."""

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)))

    @property
    def is_sound(self) -> bool:
        """Whether every figure is one that can be: a finite number from 0 on."""
        return all(isinstance(count, int | float) and 0 <= count < math.inf for count in self.counts)

    @property
    def counts(self) -> tuple[Any, ...]:
        """Every figure, in the order above."""
        counts: tuple[Any, ...] = _counts(self)  # astuple copies, ten thousand times
        return counts

    def to_json(self) -> dict[str, Any]:
        """Return the figures that are not 0."""
        return {name: count for name, count in zip(COUNTS, self.counts, strict=True) if count}


@dataclasses.dataclass(frozen=True, slots=True)
class Decision:
    """A verdict on a trial, with its reason in one line and what was measured."""

    verdict: Verdict
    reason: str
    measurements: tuple[Measurement, ...] = ()
    again: tuple[Measurement, ...] = ()
    """The runs that the incumbent had meanwhile."""
    tokens: int = 0
    """Of Python that the proposal is longer than the incumbent."""
    crashes: tuple[str, ...] = ()
    """Why it crashed before its agent mended it, each in one line."""


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One trial as the ledger holds it: a proposal, its measurements and its verdict."""

    number: int
    description: str
    verdict: Verdict
    reason: str
    """Why, in one line."""
    commit: str
    """The trial's commit; its tree holds the proposed script."""
    blob: str
    """The git blob of the proposed script."""
    baseline: float
    """What was believed of the score of the incumbent that the trial was judged against."""
    measurements: tuple[Measurement, ...] = ()
    constants: Mapping[str, Value] = dataclasses.field(default_factory=dict)
    """The script's UPPER_CASE constants on the platform of the trial, elements of tuples as ``NAME[0]``."""
    essence: str = ""
    """A digest that the script shares with those that do the same."""
    again: tuple[Measurement, ...] = ()
    """The runs that the incumbent had since the trial before."""
    tokens: int = 0
    """Of Python that the script is longer than the incumbent's, if it was measured."""
    agent: str = ""
    """Who proposed it, where that is no hook of the project's own."""
    hypothesis: str = ""
    """Why it should have helped."""
    usage: Usage = Usage()
    """What the proposal has cost."""
    passed: tuple[str, ...] = ()
    """Which agents had no answer when they were asked for it, and why."""
    crashes: tuple[str, ...] = ()
    """Why it crashed before its agent mended it."""

    @property
    def score(self) -> float | None:
        """The mean score of the trial's runs; None if none of them gave one."""
        return mean_score(self.measurements) if self.measurements else None

    @property
    def unanswered(self) -> bool:
        """Whether no agent had a proposal for it."""
        return self.verdict == "refused" and bool(self.passed) and not self.agent

    def written_as(self, commit: str) -> Self:
        """Return the entry with its commit, which is only known when the message is written."""
        return dataclasses.replace(self, commit=commit)

    def to_json(self) -> dict[str, Any]:
        """Return the entry's line of ``ledger.jsonl``, in which the runs are full objects."""
        document = dict(zip(FIELDS, _fields(self), strict=True))
        return document | {
            "constants": dict(self.constants),
            "measurements": [run.to_json() for run in self.measurements],
            "again": [run.to_json() for run in self.again],
            "usage": self.usage.to_json(),
        }

    def message(self, metric: str) -> str:
        """Return the message of the trial's commit: all that the ledger knows and the tree does not."""
        trailers = [f"Trial: {self.number}", f"Verdict: {self.verdict}"]
        if self.score is not None:
            trailers.append(f"{trailer_name(metric)}: {exact(self.score)}")
        trailers += [f"Baseline: {exact(self.baseline)}", *measurement_trailers(self.measurements)]
        if self.tokens:
            trailers.append(f"Tokens: {self.tokens:+d}")
        trailers += [f"{AGAIN}: {json.dumps(run.to_json())}" for run in self.again]
        trailers += [f"Crash: {crash}" for crash in self.crashes]
        trailers += [f"Agent: {self.agent}"] * bool(self.agent)
        trailers += [f"Hypothesis: {self.hypothesis}"] * bool(self.hypothesis)
        trailers += [f"Usage: {json.dumps(self.usage.to_json())}"] * (self.usage != Usage())
        trailers += [f"Passed: {reason}" for reason in self.passed]
        # They follow from the script, but not at once: thousands of trials would take minutes to read.
        trailers += [f"Constants: {json.dumps(dict(self.constants))}", f"Essence: {self.essence}"]
        trailers.append(f"Script: {self.blob}")
        return "\n".join([_inert(self.description), "", _inert(self.reason), "", *trailers, ""])

    @classmethod
    def from_message(cls, message: str, commit: str) -> Self:
        """Rebuild the entry from its commit.

        Raises:
            ValueError: the message is not one that :meth:`message` wrote.
        """
        description, reason, trailers = _parts(message)
        # Anybody who may write to the repository may have written it.
        texts = {
            name: tuple(one_line(text, LONGEST) for text in trailers.get(name, ()))
            for name in ("Agent", "Hypothesis", "Passed", "Crash")
        }
        try:
            return cls(
                number=int(trailers["Trial"][0]),
                description=description,
                verdict=_verdict(trailers["Verdict"][0]),
                reason=reason,
                commit=commit,
                blob=trailers["Script"][0],
                baseline=float(trailers["Baseline"][0]),
                measurements=parse_measurements(trailers),
                constants=dict(json.loads(trailers["Constants"][0]).items()),
                essence=trailers["Essence"][0],
                again=parse_measurements(trailers, AGAIN),
                tokens=int(trailers.get("Tokens", ["0"])[0]),
                agent="".join(texts["Agent"][:1]),
                hypothesis="".join(texts["Hypothesis"][:1]),
                usage=_usage(trailers["Usage"][0]) if "Usage" in trailers else Usage(),
                passed=texts["Passed"],
                crashes=texts["Crash"],
            )
        except (AttributeError, KeyError, OverflowError, TypeError) as error:
            msg = f"commit {commit} is not a trial: {error}"
            raise ValueError(msg) from error


COUNTS = tuple(field.name for field in dataclasses.fields(Usage))
FIELDS = tuple(field.name for field in dataclasses.fields(Entry))
_counts, _fields = operator.attrgetter(*COUNTS), operator.attrgetter(*FIELDS)


class Ledger:
    """The entries of one campaign, and their file, which can be rebuilt from the trials' refs."""

    def __init__(self, path: Path, entries: Sequence[Entry]) -> None:
        self.path = path
        self.entries = list(entries)
        with writing(path):
            there = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
            lines = "".join(map(_line, self.entries))
            self.was_wrong = there not in {"", lines}
            """Whether the file said something else than the entries."""
            if there != lines or not path.exists():
                self._rebuild(lines)

    def _rebuild(self, lines: str) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_suffix(".new")
        fresh.write_text(lines, encoding="utf-8")
        fresh.replace(self.path)

    def write(self, entry: Entry) -> None:
        """Write *entry*, the last one, to the file; on return it is on the disk."""
        with writing(self.path):
            if not self.path.exists():  # git clean -x, while a run trained
                self._rebuild("".join(map(_line, self.entries)))
                return
            self._append(entry)

    def _append(self, entry: Entry) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line(entry))
            file.flush()
            os.fsync(file.fileno())


def trailer_name(metric: str) -> str:
    """Return a metric's name as a git trailer of its own: ``Val-Bpb`` for ``val_bpb``."""
    words = [word.capitalize() for word in re.split(r"[^A-Za-z0-9]+", metric) if word]
    name = "-".join(words) or "Score"
    return f"{name}-Score" if name in TAKEN else name


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


def _parts(message: str) -> tuple[str, str, dict[str, list[str]]]:
    description, _, rest = message.partition("\n\n")
    reason = rest.partition("\n\n")[0]
    return one_line(description, LONGEST), one_line(reason, LONGEST), trailers_of(message)


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


def _line(entry: Entry) -> str:
    return json.dumps(entry.to_json()) + "\n"
