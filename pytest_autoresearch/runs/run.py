"""One run: from a script to its measurement."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from pytest_autoresearch.errors import DISK_FULL, RunCrashed, StorageError
from pytest_autoresearch.records.measurement import Measurement, is_score, possible
from pytest_autoresearch.records.overheads import Overheads
from pytest_autoresearch.runs.compiler_cache import CompilerCache, places
from pytest_autoresearch.runs.output import OnLine, Output, check_memory, follow
from pytest_autoresearch.runs.session import ProbeAllRows, RunSession, SealedLimits
from pytest_autoresearch.sandbox import launch
from pytest_autoresearch.system import temporary
from pytest_autoresearch.system.channel import VARIABLE, Channel
from pytest_autoresearch.system.files import NO_ROOM, is_full, writing
from pytest_autoresearch.system.text import MARK, quoted

# What a run inherits: enough to find its interpreter, its accelerator and its language, and no key. Not
# Triton's folders, which a sandbox lets nobody write to, nor its remote caches, which other runs would share.
INHERITED = re.compile(
    r"PATH|HOME|USER|LANG|LC_.*|TZ|TMPDIR|LD_LIBRARY_PATH|XDG_CACHE_HOME|AUTORESEARCH_CACHE"
    r"|CUDA_.*|NVIDIA_.*|ROCR_.*|HIP_.*|HSA_.*|HF_HOME|HF_HUB_OFFLINE|OMP_.*|MKL_.*"
    r"|CC|CXX|PYTORCH_.*|TORCH_.*|TRITON_(?!HOME|CACHE_|DUMP_DIR|OVERRIDE_DIR|REMOTE_|REDIS_).*"
)
# In a name: never inherited.
SECRET = re.compile("KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|AUTH(?!OR)", re.IGNORECASE)
ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")  # today's name, and the one before


@dataclasses.dataclass(frozen=True, slots=True)
class RunConfig:
    """What all runs of a campaign have in common."""

    metric: str
    time_budget: float | None
    """Seconds of training; None leaves it to the script."""
    enforcer: launch.Enforcer = "none"
    readable: tuple[Path, ...] = ()
    """What a run may read beside the system and its own folder."""
    hidden: tuple[Path, ...] = ()
    """What it may not read wherever it lies."""
    copies: tuple[Path, ...] = ()
    """What of that ``prepare.py`` does not name, and was found by its content."""
    memory_limit: float | None = None
    """MiB that all processes of a run may use together; None is no limit."""
    terms: SealedLimits | None = None
    """Of a sealed experiment; None where the score is what the script prints."""
    device: str | None = None
    """What ``prepare.py`` computes on, as it says itself: ``cuda``."""
    caches: CompilerCache = dataclasses.field(default_factory=CompilerCache)
    """What compilers may begin with."""

    def environment(self, seed: int, folder: Path) -> dict[str, str]:
        """Return the environment of a run in *folder*, built from nothing but the names in ``INHERITED``."""
        environment = inherited() | self.told(seed) | places(folder)
        if self.is_on_cuda and not environment.keys() & set(ALLOCATOR):
            environment[ALLOCATOR[0]] = "expandable_segments:True"  # as upstream: less memory is lost to gaps
        if self.enforcer == "none":
            return environment
        # In a sandbox there is no home: what a library wants to write goes where all of it is forgotten.
        caches = environment.pop("XDG_CACHE_HOME", None) or f"{Path.home()}/.cache"
        environment.setdefault("HF_HOME", f"{caches}/huggingface")
        own = dict.fromkeys(("HOME", "TMPDIR"), str(folder)) | {"HF_HUB_OFFLINE": "1"}
        # A compiler starts a process for each core that it may use. They share memory, which Landlock denies;
        # and where the processor's time is what counts, they only cost.
        alone = self.enforcer == "landlock" or not self.is_on_cuda
        return environment | own | ({"TORCHINDUCTOR_COMPILE_THREADS": "1"} if alone else {})

    @property
    def is_on_cuda(self) -> bool:
        """Whether the experiment computes on a GPU that torch calls CUDA, of AMD's too."""
        return (self.device or "").partition(":")[0] == "cuda"

    def keep_caches(self, folder: Path) -> None:
        """Keep what a run in *folder* has compiled. On a CPU that is little, and may be part of training."""
        if self.is_on_cuda:
            self.caches.keep(folder)

    def told(self, seed: int) -> dict[str, str]:
        """Return what the harness tells a script through its environment."""
        told = {"AUTORESEARCH_SEED": str(seed), "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        told["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # or an index would mean another GPU than sandboxes give
        if self.time_budget is not None:
            told["AUTORESEARCH_TIME_BUDGET"] = f"{self.time_budget:g}"
        if self.device is not None:
            told["AUTORESEARCH_DEVICE"] = self.device
        return told


def inherited() -> dict[str, str]:
    """Return what of this process's environment is handed on."""
    names = (name for name in os.environ if INHERITED.fullmatch(name) and not SECRET.search(name))
    return {name: os.environ[name] for name in names}


def measure(
    files: Mapping[str, str],
    script: str,
    conditions: RunConfig,
    *,
    seed: int,
    limit: float,
    log: Path | None = None,
    on_line: OnLine = lambda _line: None,
    thorough: ProbeAllRows = lambda _score: True,
    claimed: bool = False,
    needs: Overheads | None = None,
    cold: bool = False,
) -> Measurement:
    """Run *script* once, in a fresh directory that holds *files*, compilers' caches, and nothing else.

    Args:
        files: name and text of each file.
        script: the name of the file to run.
        conditions: what the runs of a campaign share.
        seed: of everything random in the run.
        limit: seconds of wall time after which the whole process tree is killed.
        log: where the output is written as well.
        on_line: called with each line of output; a carriage return ends a line too.
        thorough: which sealed scores count so much that they are probed thoroughly, as a claim's always are.
        claimed: whether a sealed model is scored on the text for claims too, which no verdict sees.
        needs: what the baseline took beside its training, to which a sealed run is held; None is no limit.
        cold: begin without what compilers have kept, as the baseline does; what this run keeps is for others.

    Raises:
        output.TimedOut: a limit was reached.
        output.Crashed: the script failed, or gave no finite score.
        output.ScoreRefused: the model it handed in cannot be scored, or cheats.
        scorer.Broken: there is no scorer.
    """
    if conditions.terms is not None:
        conditions.terms.scorer.wait()
    started = time.monotonic()
    with _blameless(log), fresh_directory(files) as folder, contextlib.ExitStack() as opened:
        environment = conditions.environment(seed, folder)
        theirs: list[int] = []
        if conditions.terms is not None:
            wire, other = Channel.pair()
            opened.callback(wire.close)
            opened.callback(other.close)
            environment[VARIABLE] = str(other.fileno())
            theirs = [other.fileno()]
        if not cold:
            conditions.caches.copy_to(folder)
        policy = launch.Policy(folder, conditions.readable, conditions.hidden)
        command = [sys.executable, script]
        guarded = launch.start(command, policy, conditions.enforcer, environment, theirs)
        opened.callback(guarded.end)
        handover = None
        if conditions.terms is not None:
            other.close()
            handover = RunSession(
                conditions.terms,
                wire,
                guarded,
                thorough,
                claimed=claimed,
                needs=needs,
                before_training=functools.partial(conditions.keep_caches, folder) if cold else None,
            )
            opened.callback(handover.close)
        output = follow(
            guarded,
            limit=limit,
            log=log,
            on_line=on_line,
            handover=handover,
            memory_limit=conditions.memory_limit,
        )
        if cold and handover is None:
            conditions.keep_caches(folder)
    wall_seconds = time.monotonic() - started
    return _measurement(output, conditions, handover, seed, wall_seconds)


@contextlib.contextmanager
def _blameless(log: Path | None) -> Iterator[None]:
    """Take a crash for want of room as no fault of the run's where there is none without the run either.

    And where there is room again without the run, take the want of the harness's as the run's fault.
    """
    try:
        yield
    except StorageError as error:
        written = [Path(tempfile.gettempdir()), *([] if log is None else [log.parent])]
        if error.kind != DISK_FULL or any(map(is_full, written)):
            raise
        raise RunCrashed("it filled the disk", ()) from error
    except RunCrashed as error:
        folder = Path(tempfile.gettempdir())
        said = next((line for line in error.tail if NO_ROOM.search(line)), None)
        if said is None or not is_full(folder):
            raise
        raise StorageError(
            DISK_FULL, f"a run failed in {str(folder)!r}: {quoted(said.removeprefix(MARK))}"
        ) from error


@contextlib.contextmanager
def fresh_directory(files: Mapping[str, str]) -> Iterator[Path]:
    """Yield a new directory that holds *files*, and remove it afterwards."""
    with temporary.folder("run") as folder:
        with writing(folder):
            for path, text in files.items():
                (folder / path).write_bytes(text.encode())
        yield folder


def execute(script: str, folder: Path, environment: Mapping[str, str], on_line: OnLine) -> Output:
    """Run a Python script of the user's own in *folder* to its end, without a sandbox, however long it takes.

    Raises:
        output.Crashed: its exit code was not 0.
    """
    guarded = launch.start([sys.executable, script], launch.Policy(folder), "none", environment)
    return follow(guarded, limit=None, on_line=on_line)


def _measurement(
    output: Output, conditions: RunConfig, handover: RunSession | None, seed: int, wall_seconds: float
) -> Measurement:
    score = _printed(output, conditions.metric) if handover is None else handover.score
    if score is None:
        raise RunCrashed("it ended without handing in a model", output.tail)
    memory = possible("memory_mb", _number(output, "peak_vram_mb"))
    if memory is not None and conditions.memory_limit is not None:  # of an accelerator it alone can tell
        check_memory(memory, conditions.memory_limit, output.tail)
    steps = possible("steps", _number(output, "num_steps"))
    said = possible("training_seconds", _number(output, "training_seconds"))
    return Measurement(
        score=score,
        claim=None if handover is None else handover.claim,
        needs=None if handover is None else handover.needs,
        seed=seed,
        wall_seconds=round(wall_seconds, 1),
        training_seconds=said if handover is None else handover.training_seconds,
        memory_mb=memory,
        training_tokens=possible("training_tokens", 1e6 * _number(output, "total_tokens_M")),
        steps=None if steps is None else int(steps),
        trust="reported" if handover is None else "sealed",
        sandbox=conditions.enforcer,
    )


def _printed(output: Output, metric: str) -> float:
    text = output.values.get(metric)
    if text is None:
        raise RunCrashed(f"no line '{metric}: NUMBER' in its output", output.tail)
    score = _number(output, metric)
    if not is_score(score):
        raise RunCrashed(f"{metric} is {quoted(text, 42)}", output.tail)
    return score


def _number(output: Output, name: str) -> float:
    """Return the number that was printed by that *name*, NaN if there is none."""
    try:
        return float(output.values.get(name, "nan"))
    except ValueError:
        return math.nan
