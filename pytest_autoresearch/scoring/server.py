"""The scorer's process: sealed models in, scores out.

Each model is scored in a forked child that dies with it. For every shortcoming of a model there is one
answer, ``refused``, and its message is one line.

    python -m pytest_autoresearch.scoring.server

speaks over the wire that it inherits: ``{"ready": true}``, and then to each request with its sealed model,
a descriptor or a path::

    {"score": true, "digest": "sha256", "share": 0.1, "split": "val", "seconds": 60, "memory": 8589934592,
     "predicting": 12.5, "nodes": 4000, "waits": true}

It answers with a :class:`measurement.Scored`, or with ``{"refused": "reason"}``, ``{"out of memory":
"reason"}`` of the accelerator's, or ``{"broken": "reason"}`` if it can score no model at all. Before that it
says ``{"read": true}``, once the model is read: until then no failure is the model's, and the answer is
``{"failed": "reason"}``.

If the request waits, a score is followed by ``{"more": 1.0}``, which has the model probed anew, in that share
of the rows, and is answered like the request, or by ``{"enough": true}``, which is not answered.

It also tells the pace of the machine: to ``{"probe": 4}`` it answers ``{"probe": [0.0104, ...]}``, the
processor's seconds that it took each time to do the same piece of work.
"""

from __future__ import annotations

import os

# Before torch, for a prepare.py that asks CUDA whether it is there: what NVML answers spoils no fork.
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
import select
import signal
import stat
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn, Self

import torch

from pytest_autoresearch.errors import ModelRefused, ProtocolError
from pytest_autoresearch.records.measurement import Scored
from pytest_autoresearch.runs.calibration import SpeedProbe
from pytest_autoresearch.scoring.evaluation import Scoring, fill_memory, ready
from pytest_autoresearch.scoring.interpreter import MOST_NODES, first_line, is_out_of_memory
from pytest_autoresearch.system.channel import Channel, Message
from pytest_autoresearch.system.text import single_line

LARGEST_FILE = 2 << 30  # bytes
MEMORY = 8 << 30  # bytes that scoring one model may take
LONGEST_ANSWER = 1 << 12  # bytes that a child may say
READ = b""  # the line that it says first, once it has read the model
BUSY = re.compile("CUDA.* busy or unavailable")  # a device that another process has for itself
EXCLUSIVE = "the GPU is not to be had; if its compute mode is exclusive: nvidia-smi -c DEFAULT"


def _read(file: str | int, size: int) -> bytes:
    """Return what a regular file holds: now, for its author may still have it open."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = file if isinstance(file, int) else os.open(file, flags)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ModelRefused("it is no regular file")
        if found.st_size > size:
            raise ModelRefused(f"it is larger than {size:,} bytes")
        parts: list[bytes] = []
        at = 0
        while part := os.pread(descriptor, found.st_size - at, at):
            parts.append(part)
            at += len(part)
        return b"".join(parts)
    finally:
        if not isinstance(file, int):
            os.close(descriptor)


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """A model to score, and what that may take."""

    file: str | int
    digest: str
    share: float
    seconds: float
    split: str = "val"
    memory: int = MEMORY
    size: int = LARGEST_FILE
    predicting: float = math.inf
    nodes: int = MOST_NODES
    waits: bool = False
    """Whether it may be asked for more probes once it has a score."""

    @classmethod
    def of(cls, message: Message) -> Self:
        """Return what a message asks for; its first descriptor, if it has one, is the model.

        Raises:
            ProtocolError: it asks for something else.
        """
        content = message.content
        try:
            limits = {name: int(content[name]) for name in ("memory", "size", "nodes") if name in content}
            return cls(
                file=message.descriptors[0] if message.descriptors else str(content["score"]),
                digest=str(content["digest"]),
                share=float(content["share"]),
                seconds=float(content["seconds"]),
                split=str(content.get("split", "val")),
                predicting=float(content.get("predicting", math.inf)),
                waits=content.get("waits") is True,
                **limits,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ProtocolError(f"no request: {first_line(error)}") from None


def serve(wire: Channel, prepare: ModuleType) -> None:
    """Answer requests until the wire is closed."""
    wire.send({"ready": True})
    while True:
        try:
            message = wire.receive()
            try:
                match message.content:
                    case {"probe": int(count)}:
                        wire.send({"probe": pace().seconds(count)})
                    case _:
                        _converse(wire, Request.of(message), prepare)
            finally:
                for descriptor in message.descriptors:
                    os.close(descriptor)
        except (EOFError, BrokenPipeError):
            return


def _converse(wire: Channel, request: Request, prepare: ModuleType) -> None:
    """Have a child answer a request, and once more if it waits and is asked for more.

    Raises:
        EOFError: whoever asked is gone.
        ProtocolError: it is asked for something else.
    """
    try:
        forked = Child(wire, request, prepare)
    except OSError as error:  # there are too many processes, or too little memory
        wire.send({"failed": f"no process for it: {error.strerror}"})
        return
    with contextlib.closing(forked) as child:
        answer = child.answer()
        if request.waits and "score" in answer:
            wire.send(answer)
            match wire.receive().content:
                case {"more": float(share)}:
                    child.ask(share)
                    answer = child.answer()
                case {"enough": True}:
                    return
                case _:
                    raise ProtocolError("neither more nor enough")
    wire.send(answer)  # nothing of it is left


class Child:
    """A fork that scores one model: nothing of it reaches the next, and it does not reach the wire."""

    def __init__(self, wire: Channel, request: Request, prepare: ModuleType) -> None:
        """Fork."""
        self._wire = wire
        self._seconds = request.seconds
        self._hearing, writing = os.pipe()
        reading, self._asking = os.pipe()
        self._heard = b""
        self._has_read = False
        try:
            self._process: int | None = os.fork()
        except OSError:
            for descriptor in (self._hearing, writing, reading, self._asking):
                os.close(descriptor)
            raise
        if self._process == 0:
            os.close(self._hearing)
            os.close(self._asking)
            _be_child(wire, request, prepare, reading, writing)
        os.close(writing)
        os.close(reading)

    def ask(self, share: float) -> None:
        """Ask it, which has answered, to probe that share of the rows anew."""
        with contextlib.suppress(BrokenPipeError):  # its next answer is then how it ended
            os.write(self._asking, f"{share}\n".encode())

    def answer(self) -> dict[str, Any]:
        """Return what it says next; without an answer, in its time and form, the model is refused."""
        try:
            for line in self._lines():
                if line == READ and not self._has_read:
                    self._has_read = True
                    self._wire.send({"read": True})
                elif (answer := _judged(line)) is not None:
                    return answer
            how = f"ended {_how(self._end())}"
        except TimeoutError:
            how = f"took more than {self._seconds:g} s"
        return {"refused" if self._has_read else "failed": f"scoring {how}"}

    def close(self) -> None:
        """End it."""
        self._end()
        os.close(self._hearing)
        os.close(self._asking)

    def _lines(self) -> Iterator[bytes]:
        """Yield the lines that it says, until it closes its end or has said too much.

        Raises:
            TimeoutError: that takes longer than it has, or whoever asked is gone.
        """
        deadline = time.monotonic() + self._seconds
        poll = select.poll()
        poll.register(self._hearing, select.POLLIN)
        poll.register(self._wire, 0)
        said = 0
        while said <= LONGEST_ANSWER:
            while b"\n" in self._heard:
                line, _, self._heard = self._heard.partition(b"\n")
                yield line
            ready = dict(poll.poll(max(deadline - time.monotonic(), 0) * 1000))
            if self._hearing not in ready:
                raise TimeoutError
            part = os.read(self._hearing, LONGEST_ANSWER)
            if not part:
                return
            said += len(part)
            self._heard += part

    def _end(self) -> int:
        """Kill it if it still runs; return its exit code."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process, signal.SIGKILL)
            _, status = os.waitpid(self._process, 0)
            self._process, self._code = None, os.waitstatus_to_exitcode(status)
        return self._code


def _be_child(wire: Channel, request: Request, prepare: ModuleType, reading: int, writing: int) -> NoReturn:
    """Score one model under the limits of its request, and say so in lines."""
    try:
        wire.close()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil((1 + request.waits) * request.seconds),) * 2)
        resource.setrlimit(resource.RLIMIT_DATA, (request.memory,) * 2)
        for answer in _answers(request, prepare, reading):
            os.write(writing, answer + b"\n")
        os._exit(0)  # nothing that the parent has registered is the child's to do
    finally:
        os._exit(1)


def _answers(request: Request, prepare: ModuleType, reading: int) -> Iterator[bytes]:
    """Yield what is said about a model: that it is read, its score, and if asked the one with more probes."""
    try:
        content = _read(request.file, request.size)
        yield READ
        fill_memory()
        scoring = Scoring(
            prepare,
            content,
            request.digest,
            split=request.split,
            predicting=request.predicting,
            nodes=request.nodes,
        )
        yield _said(dataclasses.asdict(scoring.probed(request.share)))
        with os.fdopen(reading) as asked:
            for share in asked:
                yield _said(dataclasses.asdict(scoring.probed(float(share))))
    except ModelRefused as error:
        yield _said({"refused": str(error)})
    except MemoryError:
        yield _said({"refused": f"scoring takes more than {request.memory:,} bytes of memory"})
    except Exception as error:  # noqa: BLE001 - of whatever torch or prepare.py raise
        yield _said(_failure(error))


def _failure(error: Exception) -> dict[str, str]:
    """Return the answer to what torch or prepare.py have raised."""
    if is_out_of_memory(error):
        return {"out of memory": f"scoring: {first_line(error)}"}
    if BUSY.search(str(error)):
        return {"broken": EXCLUSIVE}
    return {"refused": f"scoring failed: {first_line(error)}"}


def _said(answer: Mapping[str, Any]) -> bytes:
    return json.dumps(answer).encode()


def _judged(said: bytes) -> dict[str, Any] | None:
    """Return a child's answer if it is one."""
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


def _how(code: int) -> str:
    if code >= 0:
        return f"with exit code {code}"
    names = {number.value: number.name for number in signal.Signals}
    return f"by {names.get(-code, f'signal {-code}')}"


@functools.cache
def pace() -> SpeedProbe:
    """Return the piece of work, in this process: a fork of its own would begin with cold caches each time."""
    return SpeedProbe()


def _imported(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """Get ready, and serve the wire that this process inherits."""
    wire = Channel.inherited()  # of which prepare.py then knows nothing: it is not what is measured
    warnings.simplefilter("ignore")
    prepare = _imported(Path("prepare.py").resolve())
    torch.set_num_threads(1)  # threads would not survive a fork
    ready(prepare)
    # What fill_memory needs of torch: more than a second of the processor's time, else in every child again.
    importlib.import_module("torch._inductor.config")
    gc.collect()
    gc.freeze()  # so that a child's collector leaves the pages that it shares alone
    serve(wire, prepare)


if __name__ == "__main__":
    main()
