"""The scorer's process: sealed models in, scores out.

Each model is scored in a fork that dies with it. Whatever is wrong with a model, the answer is ``refused``
with a reason in one line.

    python -m pytest_autoresearch.scoring.server

speaks over the channel that it inherits: ``{"ready": true}``, and then answers each request, which comes with
its sealed model as a descriptor, or names the path of its file::

    {"score": true, "digest": "sha256", "share": 0.1, "split": "val", "seconds": 60, "memory": 8589934592,
     "predicting": 12.5, "nodes": 4000, "waits": true}

The answer is a :class:`~pytest_autoresearch.records.measurement.Scored`, or ``{"refused": "reason"}``,
``{"out of memory": "reason"}`` where the accelerator's memory is full, or ``{"broken": "reason"}`` where no
model at all can be scored. ``{"read": true}`` comes first, once the model is read: until then no failure is
the model's, and the answer is ``{"failed": "reason"}``.

If the request waits, a score is followed either by ``{"more": 1.0}``, which has the model probed anew in that
share of the rows, and is answered like the request, or by ``{"enough": true}``, which is not answered.

``{"calibrate": [0, 1]}`` comes with a socket, and starts a fork that tells the speed of these cores over that
socket; see :mod:`~pytest_autoresearch.scoring.speed`.
"""

from __future__ import annotations

import os

# Before torch, for a prepare.py that asks whether there is CUDA: the answer by NVML spoils no fork.
os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"

import contextlib
import dataclasses
import functools
import gc
import importlib.util
import json
import math
import re
import resource
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import torch

from pytest_autoresearch.errors import FileRefused, ModelRefused, ProtocolError
from pytest_autoresearch.records.measurement import LARGEST_MODEL, Scored
from pytest_autoresearch.scoring import speed
from pytest_autoresearch.scoring.evaluation import LanguageModel
from pytest_autoresearch.scoring.fork import Fork, forked
from pytest_autoresearch.scoring.interpreter import (
    MOST_NODES,
    Interpreter,
    fill_memory,
    first_line,
    is_out_of_memory,
)
from pytest_autoresearch.scoring.task import Task
from pytest_autoresearch.system.channel import Channel, Message
from pytest_autoresearch.system.files import read_bounded
from pytest_autoresearch.system.signals import exit_reason
from pytest_autoresearch.text import single_line

READ = b""  # the line that a fork says first, once it has read the model
BUSY = re.compile("CUDA.* busy or unavailable")  # a device that another process has for itself
EXCLUSIVE = "the GPU is not to be had; if its compute mode is exclusive: nvidia-smi -c DEFAULT"


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """A model to score, and the limits of its scoring."""

    file: str | int
    """A path or a descriptor."""
    digest: str
    share: float
    """Of the rows to probe."""
    seconds: float
    """Of wall time, for each answer."""
    memory: int
    """Bytes."""
    split: str = "val"
    size: int = LARGEST_MODEL
    """Bytes of the file."""
    predicting: float = math.inf
    """Seconds; see :meth:`~pytest_autoresearch.scoring.task.Task.evaluate`."""
    nodes: int = MOST_NODES
    waits: bool = False
    """Whether more probes may be asked for once there is a score."""

    @classmethod
    def of(cls, message: Message) -> Self:
        """Return the request in a message; its first descriptor, if it has one, is the model.

        Raises:
            ProtocolError: it is something else.
        """
        content = message.content
        try:
            limits = {name: int(content[name]) for name in ("size", "nodes") if name in content}
            return cls(
                file=message.descriptors[0] if message.descriptors else str(content["score"]),
                digest=str(content["digest"]),
                share=float(content["share"]),
                seconds=float(content["seconds"]),
                memory=int(content["memory"]),
                split=str(content.get("split", "val")),
                predicting=float(content.get("predicting", math.inf)),
                waits=content.get("waits") is True,
                **limits,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ProtocolError(f"no request: {first_line(error)}") from None


# ---------------------------------------------------------------------------
# The parent, which outlives every model


def serve(channel: Channel, task: Task) -> None:
    """Answer requests until the channel is closed."""
    channel.send({"ready": True})
    while True:
        try:
            message = channel.receive()
            try:
                match message.content:
                    case {"calibrate": list(cores)} if len(message.descriptors) == 1:
                        with contextlib.suppress(OSError):  # no fork; the other end sees that it is closed
                            forked(functools.partial(speed.serve, channel, message.descriptors[0], cores))
                    case _:
                        _converse(channel, Request.of(message), task)
            finally:
                for descriptor in message.descriptors:
                    os.close(descriptor)
        except (EOFError, BrokenPipeError):
            return


def _converse(channel: Channel, request: Request, task: Task) -> None:
    """Have a fork answer a request, and once more if more probes are asked for.

    Raises:
        EOFError: the other end is closed.
        ProtocolError: something else is asked for.
    """
    try:
        forking = Fork(functools.partial(_answers, channel, request, task))
    except OSError as error:
        channel.send({"failed": f"no process for it: {error.strerror}"})
        return
    with contextlib.closing(forking) as fork:
        answer = _answer(fork, channel, request.seconds)
        if request.waits and "score" in answer:
            channel.send(answer)
            match channel.receive().content:
                case {"more": float(share)}:
                    fork.ask(f"{share}")
                    answer = _answer(fork, channel, request.seconds, has_read=True)
                case {"enough": True}:
                    return
                case _:
                    raise ProtocolError("neither more nor enough")
    channel.send(answer)  # once the fork is gone, with all that it held


def _answer(fork: Fork, channel: Channel, seconds: float, *, has_read: bool = False) -> dict[str, Any]:
    """Return the next answer of a fork; a model whose fork gives none, in time and in form, is refused."""
    try:
        for line in fork.lines(seconds, channel):
            if line == READ and not has_read:
                has_read = True
                channel.send({"read": True})
            elif (answer := _judged(line)) is not None:
                return answer
        code = fork.end()
        how = f"ended with {exit_reason(code)}" if code >= 0 else f"was {exit_reason(code)}"
    except TimeoutError:
        how = f"took more than {seconds:g} s"
    return {"refused" if has_read else "failed": f"scoring {how}"}


def _judged(said: bytes) -> dict[str, Any] | None:
    """Return a fork's answer if it is one."""
    try:
        answer = json.loads(said)
    except (ValueError, RecursionError):
        return None
    with contextlib.suppress(ValueError):
        return dataclasses.asdict(Scored.from_json(answer))
    match answer:
        case {"refused": str(reason)} | {"out of memory": str(reason)} | {"broken": str(reason)}:
            return {next(iter(answer)): single_line(reason)} if len(answer) == 1 else None
    return None


# ---------------------------------------------------------------------------
# The fork, which scores one model


def _answers(channel: Channel, request: Request, task: Task, reading: int) -> Iterator[bytes]:
    """Yield the lines about a model: that it is read, its score, and another one for each share asked for."""
    channel.close()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil((1 + request.waits) * request.seconds),) * 2)
    resource.setrlimit(resource.RLIMIT_DATA, (request.memory,) * 2)
    try:
        content = b"".join(read_bounded(request.file, request.size, chunk=request.size))
        yield READ
        fill_memory()
        model = Interpreter(content, request.digest, task.device, request.nodes)
        evaluated = task.evaluate(model, request.split, request.predicting)
        yield _said(dataclasses.asdict(evaluated.probed(request.share)))
        with os.fdopen(reading) as asked:
            for share in asked:
                yield _said(dataclasses.asdict(evaluated.probed(float(share))))
    except FileRefused as error:
        yield _said({"refused": f"it {error}"})
    except ModelRefused as error:
        yield _said({"refused": str(error)})
    except MemoryError:
        yield _said({"refused": f"scoring takes more than {request.memory:,} bytes of memory"})
    except Exception as error:  # noqa: BLE001 - of whatever torch or prepare.py raise
        yield _said(_failure(error))


def _failure(error: Exception) -> dict[str, str]:
    """Return the answer to an error of torch or of prepare.py."""
    if is_out_of_memory(error):
        return {"out of memory": f"scoring: {first_line(error)}"}
    if BUSY.search(str(error)):
        return {"broken": EXCLUSIVE}
    return {"refused": f"scoring failed: {first_line(error)}"}


def _said(answer: Mapping[str, Any]) -> bytes:
    return json.dumps(answer).encode()


# ---------------------------------------------------------------------------


def _imported(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """Get ready, and serve the channel that this process inherits."""
    channel = Channel.inherited()  # prepare.py then does not see it: a scorer is not a measured run
    warnings.simplefilter("ignore")
    prepare = _imported(Path("prepare.py").resolve())
    torch.set_num_threads(1)  # threads would not survive a fork
    task = LanguageModel(prepare)
    # What fill_memory needs of torch: more than a second of the processor's time, else in every fork again.
    importlib.import_module("torch._inductor.config")
    gc.collect()
    gc.freeze()  # so that a fork's collector leaves the shared pages alone
    serve(channel, task)


if __name__ == "__main__":
    main()
