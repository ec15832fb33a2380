"""The scorer: sealed models in, scores out, in a process of its own.

The code here is trusted and what it reads is hostile. A sealed model is interpreted, operator by operator
from the list in operators.py, by the committed ``prepare.py``, in a forked child that dies with it. For
every shortcoming of a model there is one answer, Refused, and its message is one line.

    python -m pytest_autoresearch.measuring.scoring

speaks over the wire that it inherits: ``{"ready": true}``, and then to each request with its sealed model,
a descriptor or a path, with a :class:`measurement.Scored` or ``{"refused": "reason"}``::

    {"score": true, "digest": "sha256", "share": 0.1, "split": "val", "seconds": 60, "memory": 8589934592,
     "predicting": 12.5, "nodes": 4000}

Before that it says ``{"read": true}``, once the model is read: until then no failure is the model's, and the
answer is ``{"failed": "reason"}``.

It also tells the pace of the machine: to ``{"probe": 4}`` it answers ``{"probe": [0.0104, ...]}``, the
processor's seconds that it took each time to do the same piece of work.
"""

from __future__ import annotations

import os

os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # before torch: asking CUDA itself would spoil every fork

import contextlib
import ctypes
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
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn, Self

import torch

from pytest_autoresearch.measuring.measurement import Scored
from pytest_autoresearch.measuring.pace import Pace
from pytest_autoresearch.measuring.probes import Probes
from pytest_autoresearch.measuring.sealed import MOST_NODES, Refused, Sealed, first_line
from pytest_autoresearch.measuring.sealing import Model
from pytest_autoresearch.measuring.wire import Garbled, Message, Wire
from pytest_autoresearch.oneline import one_line

BATCH_SIZE = 32  # rows of a batch; the model sees them one at a time
LARGEST_FILE = 2 << 30  # bytes
MEMORY = 8 << 30  # bytes that scoring one model may take
LONGEST_ANSWER = 1 << 12  # bytes that a child may say
M_PERTURB, FILLING = -6, 0xA5  # an option of glibc's malloc, and the complement of what it fills with
READ = b"\n"  # what it says first, once it has read the model
# Nats by which replacing the future may change a surprise. Attention and matrix products give exactly 0; an
# FFT, or a dispatch whose groups change their sizes, rounds in float32 by about 1e-5.
TOLERANCE = 1e-3
SLOWER = 4.0  # times that an accelerator may take in float32 for what it does in 16 bits
# Probes before a score is kept, stored or claimed. Looking ahead at one position in 1,024 is then worth most:
# it is missed in 37 % of all cases, and gains a part in 2,800 of the score on the mean. benchmarks/probes.py
THOROUGH = 1_024


def score(
    prepare: ModuleType,
    content: bytes,
    announced: str,
    share: float,
    *,
    split: str = "val",
    predicting: float = math.inf,
    nodes: int = MOST_NODES,
) -> Scored:
    """Return what evaluate_bpb finds for a sealed model, less what looking ahead brings it.

    Args:
        prepare: the committed prepare.py, imported.
        content: of the sealed model's file.
        announced: the digest of the model as it was when the clock stopped.
        share: of the rows to probe; 1 is for all of them, with at least THOROUGH probes.
        split: of the validation data: ``val``, or ``claim``, which no verdict is made on.
        predicting: seconds that the model may predict for, in one pass over the validation data.
        nodes: that its graph may have.

    Raises:
        Refused: the model gets no score.
    """
    model = Sealed(content, announced, prepare.DEVICE, nodes)
    seed = secrets.randbits(63)
    claimed, took, probes = _probed(prepare, model, share, split, seed, predicting=predicting)
    if probes.caught(TOLERANCE) and model.coarse:
        # 16 bits may round as far as that, in a dispatch whose groups change their sizes, and tip a router
        # between two experts. float32 does not, so a model that changes there too looks ahead. The probes
        # are the same ones: others would be a second chance to be missed.
        model.widen()
        try:
            times = 1 if prepare.DEVICE.type == "cpu" else SLOWER
            claimed, _, probes = _probed(prepare, model, share, split, seed, predicting=times * predicting)
        except Refused as error:
            raise Refused(f"it is not causal in 16 bits, and without a score in float32: {error}") from None
    if caught := probes.caught(TOLERANCE):
        what = "changed with the tokens that come later"
        raise Refused(f"it is not causal: {caught} of {len(probes.changes)} probes {what}")
    return Scored(float(claimed * probes.factor), took, model.nodes)


def _probed(
    prepare: ModuleType, model: Model, share: float, split: str, seed: int, *, predicting: float = math.inf
) -> tuple[float, float, Probes]:
    """Return what evaluate_bpb finds for a model, the seconds that it predicted for, and its probes."""
    tokenizer = ready(prepare)
    # On an accelerator the queue is not waited for; it is short, so that a busy one is soon noticed.
    now = time.process_time if prepare.DEVICE.type == "cpu" else time.monotonic
    took = 0.0

    def timed(row: torch.Tensor) -> torch.Tensor:
        nonlocal took
        began = now()
        found = model(row)
        took += now() - began
        if took > predicting:
            raise Refused(f"its predictions take more than {predicting:.1f} s, what a model may take here")
        return found

    def alone(predict: Model, tokens: torch.Tensor) -> torch.Tensor:
        # Each row alone: a model could learn about the validation text from the other rows.
        found = torch.cat([predict(row[None]) for row in tokens])
        if found.shape[2] < tokenizer.vocab_size:
            raise Refused(f"its vocabulary is {found.shape[2]}, not {tokenizer.vocab_size}")
        return found

    probes = Probes(tokenizer.token_bytes, share, THOROUGH if share >= 1 else 1, seed)
    claimed: float = prepare.evaluate_bpb(
        functools.partial(alone, timed), tokenizer, BATCH_SIZE, probes, split
    )
    if not math.isfinite(claimed):
        raise Refused(f"its score is {claimed}")
    probes.run(functools.partial(alone, model), prepare.surprise)
    return claimed, took, probes


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
    digest: str
    share: float
    seconds: float
    split: str = "val"
    memory: int = MEMORY
    size: int = LARGEST_FILE
    predicting: float = math.inf
    nodes: int = MOST_NODES

    @classmethod
    def of(cls, message: Message) -> Self:
        """Return what a message asks for; its first descriptor, if it has one, is the model.

        Raises:
            Garbled: it asks for something else.
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
                **limits,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise Garbled(f"no request: {first_line(error)}") from None

    def answer(self, prepare: ModuleType, has_read: Callable[[], object]) -> dict[str, Any]:
        """Score the model in this process, under its limits; call *has_read* once it is read."""
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(self.seconds),) * 2)
        resource.setrlimit(resource.RLIMIT_DATA, (self.memory,) * 2)
        try:
            content = _read(self.file, self.size)
            has_read()
            fill_memory()
            found = score(
                prepare,
                content,
                self.digest,
                self.share,
                split=self.split,
                predicting=self.predicting,
                nodes=self.nodes,
            )
            return dataclasses.asdict(found)
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
    heard = b""
    try:
        for heard in _heard(reading, wire, request.seconds):
            if heard == READ:
                wire.send({"read": True})
        late = False
    except TimeoutError:
        late = True
    finally:
        os.close(reading)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    how = (
        f"took more than {request.seconds:g} s"
        if late
        else f"ended {_how(os.waitstatus_to_exitcode(status))}"
    )
    answer = None if late else _judged(heard)
    return answer or {"refused" if heard.startswith(READ) else "failed": f"scoring {how}"}


def _be_child(wire: Wire, request: Request, prepare: ModuleType, writing: int) -> NoReturn:
    try:
        wire.close()
        answer = request.answer(prepare, lambda: os.write(writing, READ))
        os.write(writing, json.dumps(answer).encode())
        os._exit(0)  # nothing that the parent has registered is the child's to do
    finally:
        os._exit(1)


def _heard(reading: int, wire: Wire, seconds: float) -> Iterator[bytes]:
    """Yield all that the child has said so far, whenever it says more, until it closes its end.

    Raises:
        TimeoutError: that takes longer than *seconds*.
    """
    deadline = time.monotonic() + seconds
    said = b""
    poll = select.poll()
    poll.register(reading, select.POLLIN)
    poll.register(wire, 0)  # whoever asked may be gone
    while len(said) <= LONGEST_ANSWER:
        ready = dict(poll.poll(max(deadline - time.monotonic(), 0) * 1000))
        if reading not in ready:
            raise TimeoutError
        part = os.read(reading, LONGEST_ANSWER)
        if not part:
            return
        said += part
        yield said


def _judged(said: bytes) -> dict[str, Any] | None:
    """Return a child's answer if it is one."""
    try:
        answer = json.loads(said)
    except (ValueError, RecursionError):
        return None
    with contextlib.suppress(ValueError):
        return dataclasses.asdict(Scored.from_json(answer))
    match answer:
        case {"refused": str(reason)} if len(answer) == 1:
            return {"refused": one_line(reason)}
    return None


def _how(code: int) -> str:
    if code >= 0:
        return f"with exit code {code}"
    names = {number.value: number.name for number in signal.Signals}
    return f"by {names.get(-code, f'signal {-code}')}"


def fill_memory() -> None:
    """Have memory that nobody wrote hold a constant, in this process from now on.

    An operator that returns such memory would else return what an earlier row has left there: the list of
    operators had one. torch fills what its operators ask for as empty, and the C library what it hands out.
    """
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(M_PERTURB, FILLING)


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
