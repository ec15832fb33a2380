"""What one run of an experiment yields."""

from __future__ import annotations

import dataclasses
import math
import operator
import statistics
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Self

from pytest_autoresearch.measuring.needs import Needs

Trust = Literal["sealed", "reported"]
"""Who computed the score: the harness, from a sealed model, or the script, which reports it."""


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
            ValueError: it is none, or not finite.
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
    """The metric, finite: for ``val_bpb`` bits per byte of held-out text."""
    seed: int
    """The seed that the harness gave the run."""
    wall_seconds: float
    """From the start of the process to its end, by the harness's clock."""
    training_seconds: float | None = None
    """Of a sealed score, on the harness's clock; else what the script says, None if it does not."""
    memory_mb: float | None = None
    """Peak memory in MiB as the script reports it: of the accelerator, or of the process on a CPU."""
    tokens: float | None = None
    """Tokens trained on."""
    steps: int | None = None
    """Optimizer steps."""
    trust: Trust = "reported"
    sandbox: str = "none"
    """What kept the run from everything else: ``bwrap``, ``landlock`` or ``none``."""
    claim: float | None = None
    """The metric on text that no verdict is made on, of a sealed run that a claim is made with."""
    needs: Needs | None = None
    """What it took beside its training, of a sealed run."""
    curve: tuple[float | None, ...] = ()
    """The loss at each tenth of the budget, as the script printed it, or none."""

    @property
    def claimed(self) -> float:
        """The score that a claim is made with: the metric itself where no other text is held out."""
        return self.score if self.claim is None else self.claim

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object without the fields that are unknown."""
        values = zip(FIELDS, _fields(self), strict=True)
        known = {name: value for name, value in values if value is not None and value != ()}
        return known if self.needs is None else known | {"needs": self.needs.to_json()}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Rebuild what :meth:`to_json` gave; fields of a later version are ignored.

        Raises:
            ValueError: the score is none, or the needs are not complete.
        """
        values = {key: value for key, value in document.items() if key in FIELDS}
        score = values.get("score")
        if not isinstance(score, int | float) or not math.isfinite(score):
            msg = f"{score!r} is no score"
            raise ValueError(msg)
        values["curve"] = tuple(values.get("curve", ()))
        if "needs" in values:
            values["needs"] = Needs.from_json(values["needs"])
        return cls(**values)


FIELDS = tuple(field.name for field in dataclasses.fields(Measurement))
_fields = operator.attrgetter(*FIELDS)


def mean_score(measurements: Iterable[Measurement]) -> float:
    """Return the mean score of at least one run."""
    return statistics.fmean(run.score for run in measurements)


def figure(value: float, sign: str = "") -> str:
    """Return *value* for a person: four decimals, or an exponent where they would hide it."""
    return f"{value:{sign}.4f}" if value == 0 or abs(value) >= 5e-5 else f"{value:{sign}.1e}"


def exact(value: float) -> str:
    """Return *value* for a record: six decimals, as scripts print, or six digits of a smaller one."""
    return f"{value:.6f}" if value == 0 or abs(value) >= 1e-3 else f"{value:.6g}"
