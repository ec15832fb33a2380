"""The scorer: sealed models in, scores out, in a process of its own.

The code here is trusted and what it reads is hostile. A sealed model is interpreted, operator by operator
from the list in operators.py, by the committed ``prepare.py``, in a forked child that dies with it. For
every shortcoming of a model there is one answer, Refused, and its message is one line.

    python -m pytest_autoresearch.measuring.scoring

speaks over the wire that it inherits: ``{"ready": true}``, and then to each request with its sealed model,
a descriptor or a path, ``{"score": 1.234}`` or ``{"refused": "reason"}``::

    {"score": true, "digests": [...], "share": 0.1, "split": "val", "seconds": 60, "memory": 8589934592}

It also tells the pace of the machine: to ``{"probe": 4}`` it answers ``{"probe": [0.0104, ...]}``, the
processor's seconds that it took each time to do the same piece of work.
"""

from __future__ import annotations

import os

os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # before torch: asking CUDA itself would spoil every fork

import contextlib
import dataclasses
import functools
import gc
import importlib.util
import json
import math
import resource
import secrets
import select
import signal
import stat
import sys
import time
import warnings
from collections.abc import Collection
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn, Self

import torch

from pytest_autoresearch.measuring.pace import Pace
from pytest_autoresearch.measuring.probes import Probes
from pytest_autoresearch.measuring.sealed import Refused, Sealed, first_line
from pytest_autoresearch.measuring.sealing import Model
from pytest_autoresearch.measuring.wire import Garbled, Message, Wire
from pytest_autoresearch.oneline import one_line

BATCH_SIZE = 32  # rows of a batch; the model sees them one at a time
LARGEST_FILE = 2 << 30  # bytes
MEMORY = 8 << 30  # bytes that scoring one model may take
LONGEST_ANSWER = 1 << 12  # bytes that a child may say
# Nats by which replacing the future may change a surprise. Attention and matrix products give exactly 0; an
# FFT, or a dispatch whose groups change their sizes, rounds in float32 by about 1e-5.
TOLERANCE = 1e-3
# Probes before a score is kept, stored or claimed. Looking ahead at one position in 2,048 is then worth most:
# it is missed in 37 % of all cases, and gains a part in 5,600 of the score on the mean. benchmarks/probes.py
THOROUGH = 2_048


def score(
    prepare: ModuleType,
    file: str | int,
    digests: Collection[str],
    share: float,
    *,
    split: str = "val",
    size: int = LARGEST_FILE,
) -> float:
    """Return what evaluate_bpb finds for a sealed model, less what looking ahead brings it.

    Args:
        prepare: the committed prepare.py, imported.
        file: the path of a sealed model, or its open descriptor.
        digests: of the weights as they were when the clock stopped.
        share: of the rows to probe; 1 is for all of them, with at least THOROUGH probes.
        split: of the validation data: ``val``, or ``claim``, which no verdict is made on.
        size: bytes that the file may have.

    Raises:
        Refused: the model gets no score.
    """
    model = Sealed(_read(file, size), digests, prepare.DEVICE)
    seed = secrets.randbits(63)
    claimed, probes = _probed(prepare, model, share, split, seed)
    if probes.caught(TOLERANCE) and model.coarse:
        # 16 bits may round as far as that, in a dispatch whose groups change their sizes, and tip a router
        # between two experts. float32 does not, so a model that changes there too looks ahead. The probes
        # are the same ones: others would be a second chance to be missed.
        model.widen()
        try:
            claimed, probes = _probed(prepare, model, share, split, seed)
        except Refused as error:
            raise Refused(f"it is not causal in 16 bits, and without a score in float32: {error}") from None
    if caught := probes.caught(TOLERANCE):
        what = "changed with the tokens that come later"
        raise Refused(f"it is not causal: {caught} of {len(probes.changes)} probes {what}")
    return float(claimed * probes.factor)


def _probed(prepare: ModuleType, model: Model, share: float, split: str, seed: int) -> tuple[float, Probes]:
    """Return what evaluate_bpb finds for a model, and its probes."""
    tokenizer = ready(prepare)

    def logits(tokens: torch.Tensor) -> torch.Tensor:
        # Each row alone: a model could learn about the validation text from the other rows.
        found = torch.cat([model(row[None]) for row in tokens])
        if found.shape[2] < tokenizer.vocab_size:
            raise Refused(f"its vocabulary is {found.shape[2]}, not {tokenizer.vocab_size}")
        return found

    probes = Probes(tokenizer.token_bytes, share, THOROUGH if share >= 1 else 1, seed)
    claimed: float = prepare.evaluate_bpb(logits, tokenizer, BATCH_SIZE, probes, split)
    if not math.isfinite(claimed):
        raise Refused(f"its score is {claimed}")
    probes.run(logits, prepare.surprise)
    return claimed, probes


def _read(file: str | int, size: int) -> bytes:
    """Return what a regular file holds: now, for its author may still have it open."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = file if isinstance(file, int) else os.open(file, flags)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise Refused("it is no regular file")
        if found.st_size > size:
            raise Refused(f"it is larger than {size:,} bytes")
        parts: list[bytes] = []
        at = 0
        while part := os.pread(descriptor, found.st_size - at, at):
            parts.append(part)
            at += len(part)
        return b"".join(parts)
    finally:
        if not isinstance(file, int):
            os.close(descriptor)


# ---------------------------------------------------------------------------
# The process


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """A model to score, and what that may take."""

    file: str | int
    digests: frozenset[str]
    share: float
    seconds: float
    split: str = "val"
    memory: int = MEMORY
    size: int = LARGEST_FILE

    @classmethod
    def of(cls, message: Message) -> Self:
        """Return what a message asks for; its first descriptor, if it has one, is the model.

        Raises:
            Garbled: it asks for something else.
        """
        content = message.content
        try:
            limits = {name: int(content[name]) for name in ("memory", "size") if name in content}
            return cls(
                file=message.descriptors[0] if message.descriptors else str(content["score"]),
                digests=frozenset(content["digests"]),
                share=float(content["share"]),
                seconds=float(content["seconds"]),
                split=str(content.get("split", "val")),
                **limits,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise Garbled(f"no request: {first_line(error)}") from None

    def answer(self, prepare: ModuleType) -> dict[str, Any]:
        """Score the model in this process, under its limits."""
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(self.seconds),) * 2)
        resource.setrlimit(resource.RLIMIT_DATA, (self.memory,) * 2)
        try:
            score_of = functools.partial(score, split=self.split, size=self.size)
            return {"score": score_of(prepare, self.file, self.digests, self.share)}
        except Refused as error:
            return {"refused": str(error)}
        except MemoryError:
            return {"refused": f"scoring takes more than {self.memory:,} bytes of memory"}
        except Exception as error:  # noqa: BLE001 - of whatever torch or prepare.py raise
            return {"refused": f"scoring failed: {first_line(error)}"}


def serve(wire: Wire, prepare: ModuleType) -> None:
    """Answer requests until the wire is closed."""
    wire.send({"ready": True})
    while True:
        try:
            message = wire.receive()
            try:
                match message.content:
                    case {"probe": int(count)}:
                        answer: dict[str, Any] = {"probe": pace().seconds(count)}
                    case _:
                        answer = _answer(wire, Request.of(message), prepare)
            finally:
                for descriptor in message.descriptors:
                    os.close(descriptor)
            wire.send(answer)
        except (EOFError, BrokenPipeError):
            return


def _answer(wire: Wire, request: Request, prepare: ModuleType) -> dict[str, Any]:
    """Have a child answer a request: nothing of one model reaches the next, and no child reaches the wire."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _be_child(wire, request, prepare, writing)
    os.close(writing)
    try:
        said = _heard(reading, wire, request.seconds)
    finally:
        os.close(reading)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    if said is None:
        return {"refused": f"scoring took more than {request.seconds:g} s"}
    return _judged(said) or {"refused": f"scoring ended {_how(os.waitstatus_to_exitcode(status))}"}


def _be_child(wire: Wire, request: Request, prepare: ModuleType, writing: int) -> NoReturn:
    try:
        wire.close()
        os.write(writing, json.dumps(request.answer(prepare)).encode())
        os._exit(0)  # nothing that the parent has registered is the child's to do
    finally:
        os._exit(1)


def _heard(reading: int, wire: Wire, seconds: float) -> bytes | None:
    """Return what the child says until it closes its end; None if that takes longer than *seconds*."""
    deadline = time.monotonic() + seconds
    said = b""
    poll = select.poll()
    poll.register(reading, select.POLLIN)
    poll.register(wire, 0)  # whoever asked may be gone
    while len(said) <= LONGEST_ANSWER:
        ready = dict(poll.poll(max(deadline - time.monotonic(), 0) * 1000))
        if reading not in ready:
            return None
        part = os.read(reading, LONGEST_ANSWER)
        if not part:
            break
        said += part
    return said


def _judged(said: bytes) -> dict[str, Any] | None:
    """Return a child's answer if it is one."""
    try:
        answer = json.loads(said)
    except (ValueError, RecursionError):
        return None
    match answer:
        case {"score": float(score)} if len(answer) == 1 and math.isfinite(score):
            return {"score": score}
        case {"refused": str(reason)} if len(answer) == 1:
            return {"refused": one_line(reason)}
    return None


def _how(code: int) -> str:
    if code >= 0:
        return f"with exit code {code}"
    names = {number.value: number.name for number in signal.Signals}
    return f"by {names.get(-code, f'signal {-code}')}"


@functools.cache
def ready(prepare: ModuleType) -> Any:
    """Return the tokenizer, which is loaded once: that verifies all prepared data, and has it read."""
    return prepare.Tokenizer.load()


@functools.cache
def pace() -> Pace:
    """Return the piece of work, in this process: a fork of its own would begin with cold caches each time."""
    return Pace()


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
    wire = Wire.inherited()  # of which prepare.py then knows nothing: it is not what is measured
    warnings.simplefilter("ignore")
    prepare = _imported(Path("prepare.py").resolve())
    torch.set_num_threads(1)  # threads would not survive a fork
    ready(prepare)
    gc.collect()
    gc.freeze()  # so that a child's collector leaves the pages that it shares alone
    serve(wire, prepare)


if __name__ == "__main__":
    main()
