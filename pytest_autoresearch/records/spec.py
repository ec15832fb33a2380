"""What an experiment is: its command, its files, its metric."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
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
    """Globs of the files that a proposal may change; ``**`` stands for any number of folders."""
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
        """Return whether a proposal may change *path*, which is relative to the folder."""
        parts = PurePosixPath(path).parts
        return path not in self.fixed and any(_matches(parts, glob.split("/")) for glob in self.editable)

    def is_part(self, path: str) -> bool:
        """Return whether *path*, relative to the folder, is editable, fixed or the stored baseline."""
        return self.is_editable(path) or path in self.fixed or path == self.baseline

    @property
    def has_folders(self) -> bool:
        """Whether editable files may lie in folders below the folder."""
        return any("/" in glob or "**" in glob for glob in self.editable)


def _matches(parts: Sequence[str], globs: Sequence[str]) -> bool:
    """Return whether a path matches a glob, both in parts; ``**`` stands for any number of folders."""
    if not globs:
        return not parts
    if globs[0] == "**":
        return any(_matches(parts[i:], globs[1:]) for i in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], globs[0]) and _matches(parts[1:], globs[1:])
