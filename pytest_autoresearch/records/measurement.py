"""What one run of an experiment yields."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Self

from pytest_autoresearch.records.overheads import Overheads
from pytest_autoresearch.text import single_line

LARGEST_MODEL = 2 << 30  # bytes of a sealed model's file

Trust = Literal["sealed", "reported"]
"""Who computed the score: the harness, from a sealed model, or the script, which reports it."""

Split = Literal["val", "claim"]
"""Part of the validation data: verdicts are made on ``val``, claims on ``claim``, which no verdict sees."""

LARGEST_SCORE = 1e100  # on either side of 0; the square of a larger one may be no float, and noise is squares
# A run may print any number. No machine has more than this, and no run takes more.
MOST = {"training_seconds": 1e9, "memory_mb": 1e9, "training_tokens": 1e18, "steps": 1e15}


@dataclasses.dataclass(frozen=True, slots=True)
class Scored:
    """The scorer's answer: a score, and what it took."""

    score: float
    predicting: float
    """Seconds that the model predicted for in one pass over the validation data: of the processor or, on an
    accelerator, of wall time."""
    nodes: int
    """Of its graph."""

    @classmethod
    def from_json(cls, document: object) -> Self:
        """Rebuild an answer.

        Raises:
            ValueError: the document is no answer, or not finite.
        """
        match document:
            case {"score": float(score), "predicting": float(predicting), "nodes": int(nodes)}:
                if math.isfinite(score + predicting):
                    return cls(score, predicting, nodes)
        raise ValueError


@dataclasses.dataclass(frozen=True, slots=True)
class Measurement:
    """The score of one run, and what it took to get it."""

    score: float
    """The metric, at most :data:`LARGEST_SCORE`: for ``val_bpb`` bits per byte of held-out text."""
    seed: int
    """The seed that the harness gave the run."""
    wall_seconds: float
    """From the start of the process to its end, by the harness's clock."""
    training_seconds: float | None = None
    """Of a sealed score, on the harness's clock; else what the script says, None if it does not."""
    memory_mb: float | None = None
    """Peak memory in MiB as the script reports it: of the accelerator, or of the process on a CPU."""
    training_tokens: float | None = None
    steps: int | None = None
    trust: Trust = "reported"
    sandbox: str = "none"
    """Which sandbox the run was in: ``bwrap``, ``landlock`` or ``none``."""
    claim: float | None = None
    """The metric on text that no verdict is made on, of a sealed run that a claim is made with."""
    overheads: Overheads | None = None
    """What it took beside its training, of a sealed run."""
    curve: tuple[float | None, ...] = ()
    """The loss at each tenth of the budget, as the script printed it, or none."""

    @property
    def claimed(self) -> float:
        """The score that a claim is made with: the metric itself where no other text is held out."""
        return self.score if self.claim is None else self.claim

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object without the fields that are unknown."""
        known = {name: value for name in FIELDS if (value := getattr(self, name)) not in (None, ())}
        return known if self.overheads is None else known | {"overheads": self.overheads.to_json()}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Rebuild what :meth:`to_json` gave; fields of a later version and impossible figures are ignored.

        Raises:
            ValueError: the score is none, or the overheads are not complete.
        """
        values = {key: value for key, value in document.items() if key in FIELDS}
        score = values.get("score")
        if not is_score(score):
            raise ValueError(f"{single_line(repr(score), 40)} is no score")
        values |= {name: possible(name, values.get(name)) for name in MOST}
        values["curve"] = tuple(values.get("curve", ()))
        if "overheads" in values:
            values["overheads"] = Overheads.from_json(values["overheads"])
        return cls(**values)


FIELDS = tuple(field.name for field in dataclasses.fields(Measurement))


def mean_score(measurements: Iterable[Measurement]) -> float:
    """Return the mean score of at least one run."""
    return statistics.fmean(run.score for run in measurements)


def is_score(value: object) -> bool:
    """Tell whether *value* is a number that can be a score: not NaN, nor beyond :data:`LARGEST_SCORE`."""
    return isinstance(value, int | float) and abs(value) <= LARGEST_SCORE


def possible(name: str, value: Any) -> Any:
    """Return *value* if it is a number that the field *name* of a measurement can have, else None."""
    return value if isinstance(value, int | float) and 0 <= value <= MOST[name] else None


def format_score(value: float, sign: str = "") -> str:
    """Return *value* for a person: four decimals, or an exponent where it is too small or too large."""
    if abs(value) >= 1e9:
        return f"{value:{sign}.4e}"
    return f"{value:{sign}.4f}" if value == 0 or abs(value) >= 5e-5 else f"{value:{sign}.1e}"


def format_exact(value: float) -> str:
    """Return *value* for a record: six decimals, as scripts print, or digits if it is small or large."""
    if abs(value) >= 1e9:
        return f"{value:.16g}"
    return f"{value:.6f}" if value == 0 or abs(value) >= 1e-3 else f"{value:.6g}"
