"""What an experiment is: its command, its files, its metric."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Literal, TypeAlias

Direction: TypeAlias = Literal["minimize", "maximize"]

UPSTREAM_OUTPUTS = {
    "training_seconds": ("training_seconds", 1.0),
    "memory_mb": ("peak_vram_mb", 1.0),
    "training_tokens": ("total_tokens_M", 1e6),
    "steps": ("num_steps", 1.0),
}


@dataclasses.dataclass(frozen=True, slots=True)
class ExperimentSpec:
    """An experiment, before anything is known of the machine or the repository.

    Every path but *folder* is relative to *folder*. The defaults are those of the embedded experiment.
    """

    folder: Path
    """An absolute path."""
    script: str = "train.py"
    """The file that pytest collects the experiment as."""
    command: tuple[str, ...] = ("python", "train.py")
    """What a run executes; ``python`` stands for the interpreter that pytest runs under."""
    editable: tuple[str, ...] = ("train.py",)
    """Globs of the files that a proposal may change."""
    fixed: tuple[str, ...] = ("prepare.py",)
    """Files that lie beside them in a run, as they are committed; a missing one is left out."""
    program: str = "program.md"
    """The instructions to agents."""
    baseline: str = "baseline.json"
    """Where baselines are stored."""
    metric: str = "val_bpb"
    direction: Direction = "minimize"
    outputs: Mapping[str, tuple[str, float]] = dataclasses.field(default_factory=lambda: UPSTREAM_OUTPUTS)
    """For fields of a :class:`Measurement`: the printed name, and the factor to the field's unit."""

    @property
    def path(self) -> Path:
        """The script's absolute path."""
        return self.folder / self.script

    def is_editable(self, path: str) -> bool:
        """Tell whether a proposal may change *path*, which is relative to the folder."""
        return path not in self.fixed and any(PurePosixPath(path).match(glob) for glob in self.editable)
