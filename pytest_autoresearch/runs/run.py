"""One run: from an experiment's files to their measurement."""

from __future__ import annotations

import contextlib
import functools
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pytest_autoresearch.errors import DISK_FULL, RunCrashed, StorageError
from pytest_autoresearch.records.measurement import Measurement, is_score, possible
from pytest_autoresearch.runs.clock import Calibration
from pytest_autoresearch.runs.compiler_cache import CompilerCache
from pytest_autoresearch.runs.config import RunConfig
from pytest_autoresearch.runs.output import OnLine, Output, check_memory, follow
from pytest_autoresearch.runs.request import RunRequest
from pytest_autoresearch.runs.session import RunSession, Scorer
from pytest_autoresearch.sandbox import launch
from pytest_autoresearch.sandbox.policy import Policy
from pytest_autoresearch.sandbox.process import SandboxedProcess
from pytest_autoresearch.system import temporary
from pytest_autoresearch.system.channel import VARIABLE, Channel
from pytest_autoresearch.system.files import NO_SPACE, is_full
from pytest_autoresearch.text import MARK, quoted


def measure(
    request: RunRequest,
    config: RunConfig,
    *,
    scorer: Scorer | None = None,
    calibration: Calibration | None = None,
    caches: CompilerCache | None = None,
    on_line: OnLine = lambda _line: None,
    on_start: Callable[[SandboxedProcess], object] = lambda _process: None,
) -> Measurement:
    """Run an experiment once, in a fresh folder that holds its files and nothing else.

    The request's rule for pruning is not looked at: *on_line* may return why the run shall end. A sealed
    experiment needs a scorer and a calibration. After *on_start* another thread may cancel the process.

    Raises:
        RunTimedOut: a limit was reached.
        RunCrashed: the script failed, or gave no finite score.
        RunPruned: *on_line* ended it.
        ScoreRefused: the model that it handed in cannot be scored, or cheats.
        ScorerUnavailable: there is no scorer.
        StorageError: the harness cannot write.
    """
    if scorer is not None:
        scorer.wait()  # getting ready would take CPU time away from the run
    started, limit = time.monotonic(), request.limit
    if limit is None:
        limit = config.wall_seconds + (0 if scorer is None else scorer.longest)
    files = {**request.files, **config.fixed}
    with (
        _disk_errors(request.log),
        temporary.folder("run", files) as folder,
        contextlib.ExitStack() as held,
    ):
        keep = None
        if caches is not None and request.cache_use == "copy":
            caches.copy_to(folder)
        if caches is not None and request.cache_use == "fill" and config.site.is_on_cuda:
            keep = functools.partial(caches.keep, folder)  # on a CPU it may be part of training
        channel, theirs = Channel.pair()
        held.callback(channel.close)
        held.callback(theirs.close)
        environment, descriptors = config.environment(request.seed, folder), []
        if config.site.sealed is not None:
            environment[VARIABLE], descriptors = str(theirs.fileno()), [theirs.fileno()]
        policy = Policy(folder, config.site.data.shared, config.site.hidden)
        process = launch.start(config.command, policy, config.enforcer, environment, descriptors)
        held.callback(process.end)
        theirs.close()
        on_start(process)
        session = None
        if config.site.sealed is not None:
            assert scorer is not None, "a sealed experiment needs a scorer"
            assert calibration is not None, "and a calibration"
            session = RunSession(
                request,
                channel,
                process,
                data=config.site.data,
                limits=config.site.sealed,
                scorer=scorer,
                calibration=calibration,
                before_training=keep,
            )
            held.callback(session.close)
        memory, log = config.memory_limit, request.log
        output = follow(process, limit=limit, log=log, on_line=on_line, session=session, memory_limit=memory)
        if session is None and keep is not None:
            keep()
    return _measurement(output, config, session, request.seed, time.monotonic() - started)


@contextlib.contextmanager
def _disk_errors(log: Path | None) -> Iterator[None]:
    """Tell a run that has filled the disk from a disk that is full without it.

    A run that crashes for want of room is a :class:`StorageError` if the disk is still full when the run's
    files are gone. And a :class:`StorageError` is the run's crash if there is room again then.
    """
    scratch = Path(tempfile.gettempdir())
    try:
        yield
    except StorageError as error:
        written = [scratch, *([] if log is None else [log.parent])]
        if error.kind != DISK_FULL or any(map(is_full, written)):
            raise
        raise RunCrashed("it filled the disk", ()) from error
    except RunCrashed as error:
        said = next((line for line in error.tail if NO_SPACE.search(line)), None)
        if said is None or not is_full(scratch):
            raise
        reason = f"a run failed in {str(scratch)!r}: {quoted(said.removeprefix(MARK))}"
        raise StorageError(DISK_FULL, reason) from error


def _measurement(
    output: Output, config: RunConfig, session: RunSession | None, seed: int, wall_seconds: float
) -> Measurement:
    score = _printed_score(output, config.spec.metric) if session is None else session.score
    if score is None:
        raise RunCrashed("it ended without handing in a model", output.tail)
    figures = {
        field: possible(field, factor * _number(output.values.get(name, "nan")))
        for field, (name, factor) in config.spec.outputs.items()
    }
    memory, steps = figures.get("memory_mb"), figures.get("steps")
    if memory is not None and config.memory_limit is not None:  # only the script knows of an accelerator's
        check_memory(memory, config.memory_limit, output.tail)
    return Measurement(
        score=score,
        claim=None if session is None else session.claim,
        overheads=None if session is None else session.overheads,
        seed=seed,
        wall_seconds=round(wall_seconds, 1),
        training_seconds=figures.get("training_seconds") if session is None else session.training_seconds,
        memory_mb=memory,
        training_tokens=figures.get("training_tokens"),
        steps=None if steps is None else int(steps),
        trust=config.site.trust,
        sandbox=config.enforcer,
    )


def _printed_score(output: Output, metric: str) -> float:
    text = output.values.get(metric)
    if text is None:
        raise RunCrashed(f"no line '{metric}: NUMBER' in its output", output.tail)
    score = _number(text)
    if not is_score(score):
        raise RunCrashed(f"{metric} is {quoted(text, 42)}", output.tail)
    return score


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
