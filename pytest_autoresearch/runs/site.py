"""A machine, as an experiment's ``prepare.py`` describes it."""

from __future__ import annotations

import dataclasses
import os
import platform
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from pytest_autoresearch.errors import RepositoryError
from pytest_autoresearch.records.measurement import Trust
from pytest_autoresearch.records.spec import Direction
from pytest_autoresearch.runs.copies import copies
from pytest_autoresearch.runs.data import KEYS, VALIDATION, Data
from pytest_autoresearch.runs.environment import told
from pytest_autoresearch.runs.limits import SealedLimits
from pytest_autoresearch.runs.output import OnLine, follow
from pytest_autoresearch.sandbox import launch
from pytest_autoresearch.sandbox.policy import Enforcer, Policy
from pytest_autoresearch.system import temporary

PREPARE = "prepare.py"


@dataclasses.dataclass(frozen=True, slots=True)
class Site:
    """A machine and the data on it. Plain data: it can be pickled."""

    platform: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Machine, software, data, budget and trust: scores are only comparable within one platform."""
    data: Data = dataclasses.field(default_factory=Data)
    sealed: SealedLimits | None = None
    """Of a sealed experiment; None where the score is what the script prints."""
    copies: tuple[Path, ...] = ()
    """Copies of held-out data that ``prepare.py`` does not name; they were found by their content."""
    no_gpu: str = ""
    """Why torch uses no GPU, in the words of ``prepare.py``."""

    @classmethod
    def of(
        cls,
        fixed: Mapping[str, str],
        direction: Direction,
        *,
        time_budget: float | None,
        enforcer: Enforcer,
        on_line: OnLine = lambda _line: None,
    ) -> Self:
        """Run ``prepare.py``, which prepares the data and describes the machine.

        It is one of the *fixed* files, given by path and text; without it only the machine is known. None
        for *time_budget*, in seconds, leaves it to ``prepare.py``. The *enforcer* is that of runs.

        Raises:
            RunCrashed: ``prepare.py`` failed.
            RepositoryError: it describes the machine wrongly.
        """
        described = _describe(fixed, time_budget, on_line) if PREPARE in fixed else {}
        try:
            data = Data.described(described)
        except ValueError as error:
            raise RepositoryError(f"{PREPARE}: {error}") from error
        described = {key: value for key, value in described.items() if key not in KEYS}
        no_gpu = described.pop("no_gpu", "")
        sealed = _sealed_limits(described, direction) if data.validation else None
        found: list[Path] = []
        if sealed is not None and enforcer != "none":
            with temporary.folder("copies") as folder:
                found = copies(Policy(folder, data.shared, data.held_back))
        if "device" not in described:
            described |= {"machine": platform.machine(), "cores": str(os.cpu_count())}
        described["trust"] = "reported" if sealed is None else "sealed"
        return cls(described, data, sealed, tuple(found), no_gpu)

    @property
    def trust(self) -> Trust:
        """Who computes the score: the harness, or the script."""
        return "reported" if self.sealed is None else "sealed"

    @property
    def device(self) -> str | None:
        """What ``prepare.py`` computes on, such as ``cuda:0``; None if it does not say."""
        return self.platform.get("device")

    @property
    def is_on_cuda(self) -> bool:
        """Whether the device is a GPU that torch calls CUDA, AMD's included."""
        return (self.device or "").partition(":")[0] == "cuda"

    @property
    def profile(self) -> str:
        """The column of ``per_device`` in use: ``cuda``, or ``cpu``, which Apple's GPUs use too."""
        name = (self.device or "cpu").partition(":")[0]
        return "cpu" if name == "mps" else name

    @property
    def hidden(self) -> tuple[Path, ...]:
        """Files and folders that no run may read, wherever they lie."""
        return (*self.data.held_back, *self.copies)


def _describe(fixed: Mapping[str, str], time_budget: float | None, on_line: OnLine) -> dict[str, str]:
    """Run ``prepare.py`` by itself and return the ``key: value`` block at the end of its output."""
    # Unlike a run it may use the network and the user's own access to the data, and take as long as it likes.
    own = {key: value for key, value in os.environ.items() if not re.match("COV(ERAGE)?_", key)}
    with temporary.folder("prepare", fixed) as folder:
        command = [sys.executable, PREPARE]
        process = launch.start(command, Policy(folder), "none", own | told(0, time_budget))
        return follow(process, limit=None, on_line=on_line).values


def _sealed_limits(described: Mapping[str, str], direction: Direction) -> SealedLimits:
    if direction == "maximize":  # the penalty for overtime is added to a score
        raise RepositoryError(f"{PREPARE}: with {VALIDATION} a lower score has to be the better one")
    try:
        budget = float(described["time_budget"])
    except (KeyError, ValueError):
        reason = f"{PREPARE}: with {VALIDATION} it has to name its time_budget, in seconds"
        raise RepositoryError(reason) from None
    match described.get("clock"):
        case "calibrated" | "cpu" as clock:
            return SealedLimits(budget, clock)
    return SealedLimits(budget, "wall")
