"""What tests of sealed scores share: an experiment in miniature, models of many kinds, the real scorer."""

# ruff: noqa: D101 - the name of a kind of model says it

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - everybody's name for it
from safetensors.torch import load, save
from torch import nn

from pytest_autoresearch.scoring.client import MEMORY
from pytest_autoresearch.scoring.evaluation import LanguageModel, Scoring
from pytest_autoresearch.scoring.export import KEY, Model, seal, text_digest
from pytest_autoresearch.scoring.interpreter import Interpreter
from pytest_autoresearch.scoring.task import LanguageModelExperiment
from pytest_autoresearch.system.channel import VARIABLE, Channel

ROOT = Path(__file__).parents[1]

PREPARE = '''\
"""An experiment in miniature: its tokenizer, its validation splits, its metric."""

import math
import os
import signal

import torch
import torch.nn.functional as F  # noqa: N812 - everybody's name for it

torch.set_num_threads(1)
DEVICE = torch.device("cpu")
VOCABULARY, LENGTH, ROWS = 61, 24, 70
SPECIALS = 2
VALIDATION, CLAIM = torch.randint(
    VOCABULARY, (2, ROWS, LENGTH + 1), generator=torch.Generator().manual_seed(1)
)
assert "AUTORESEARCH_CHANNEL" not in os.environ  # a scorer is not measured itself


class Tokenizer:
    vocab_size = VOCABULARY
    token_bytes = [1 + token % 3 for token in range(VOCABULARY - SPECIALS)] + [0] * SPECIALS

    @classmethod
    def load(cls):
        return cls()


@torch.no_grad()
def evaluate_bpb(model, tokenizer, batch_size, watch=None, split="val"):
    token_bytes = torch.tensor(tokenizer.token_bytes)
    nats = size = 0.0
    for rows in {"val": VALIDATION, "claim": CLAIM}[split].split(batch_size):
        inputs, targets = rows[:, :-1], rows[:, 1:]
        logits = model(inputs)
        broken(logits[0, 0, 0].item())
        surprises = surprise(logits, targets)
        counted = token_bytes[targets] > 0
        nats += surprises[counted].double().sum().item()
        size += token_bytes[targets].sum().item()
        if watch is not None:
            watch(inputs, targets, counted, surprises)
    return nats / math.log(2) / size


def broken(logit):
    """Stands for a scorer that a model has found a hole in."""
    if logit == 1001:
        os.kill(os.getpid(), signal.SIGSEGV)
    if logit == 1002:
        VALIDATION.zero_()
    if logit == 1003:
        shout(b'{"score": 0.01}\\n' * 2)
    if logit == 1004:
        os._exit(7)
    if logit == 1005:
        raise ZeroDivisionError("of prepare.py's own")
    if logit == 1006:
        shout(b'{"score": NaN}')


def shout(said):
    for descriptor in range(3, 100):
        try:
            os.write(descriptor, said)
        except OSError:
            pass
    os._exit(0)


def surprise(logits, targets):
    return torch.stack([F.cross_entropy(row.float(), y, reduction="none") for row, y in zip(logits, targets)])
'''


def prepare_module() -> ModuleType:
    """The miniature, imported."""
    module = ModuleType("prepare")
    exec(compile(PREPARE, "prepare.py", "exec"), vars(module))  # noqa: S102 - the text above
    return module


prepare = prepare_module()
TASK = LanguageModel(cast("LanguageModelExperiment", prepare))
VOCABULARY: int = prepare.VOCABULARY
LENGTH: int = prepare.LENGTH
WIDTH = 16
TOKENS = torch.zeros(4, LENGTH, dtype=torch.int64)


def sealed(model: Model) -> tuple[bytes, str]:
    """The file of a sealed model, and the digest that its run has announced."""
    found = seal(model, TOKENS)
    file = io.BytesIO()
    found.write(file)
    return file.getvalue(), found.digest


def scoring(content: bytes, announced: str, predicting: float = math.inf) -> Scoring:
    """A sealed model, evaluated as the scorer does."""
    return TASK.evaluate(Interpreter(content, announced, TASK.device), "val", predicting)


def digest_of(content: bytes) -> str:
    """The digest of a sealed model that a run announces, of whatever the file holds in its place."""
    size = int.from_bytes(content[:8], "little")
    try:
        text = json.loads(content[8 : 8 + size])["__metadata__"][KEY]
    except (ValueError, KeyError, TypeError):
        return "0" * 64
    return text_digest(text) if isinstance(text, str) else "0" * 64


Graph = list[list[Any]]


def taken_apart(content: bytes) -> tuple[Graph, dict[str, torch.Tensor]]:
    """The graph of a sealed model, and its weights."""
    size = int.from_bytes(content[:8], "little")
    graph: Graph = json.loads(json.loads(content[8 : 8 + size])["__metadata__"][KEY])
    return graph, load(content)


def put_together(graph: Any, weights: dict[str, torch.Tensor]) -> bytes:
    """A file with any graph, or with any text in its place."""
    return bytes(save(weights, {KEY: graph if isinstance(graph, str) else json.dumps(graph)}))


class Server:
    """The scorer as it is run: a process, at the other end of a channel."""

    def __init__(self, folder: Path) -> None:
        (folder / "prepare.py").write_text(PREPARE)
        self.channel, theirs = Channel.pair()
        environment = {**os.environ, VARIABLE: str(theirs.fileno()), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "pytest_autoresearch.scoring.server"]
        self.process = subprocess.Popen(command, cwd=folder, env=environment, pass_fds=[theirs.fileno()])
        theirs.close()
        assert self.channel.receive(60).content == {"ready": True}

    def score(self, content: bytes, announced: str | None = None, **limits: float) -> dict[str, Any]:
        """What it answers about a file, which is the one that was announced unless another is named."""
        with tempfile.TemporaryFile() as file:
            file.write(content)
            file.flush()
            request = {"score": True, "digest": announced or digest_of(content), **limits}
            return self.ask(request, file.fileno())

    def ask(self, request: dict[str, Any], *descriptors: int) -> dict[str, Any]:
        self.channel.send({"share": 0.1, "seconds": 30.0, "memory": MEMORY, **request}, *descriptors)
        while (answer := dict(self.channel.receive(60).content)) == {"read": True}:
            pass
        return answer

    def refusal(self, content: bytes, announced: str | None = None, **limits: float) -> str:
        """Why it refuses a file, which it does in one line."""
        answer = self.score(content, announced, **limits)
        assert list(answer) == ["refused"], answer
        reason = answer["refused"]
        assert isinstance(reason, str)
        assert 0 < len(reason) <= 200
        assert reason.isprintable()
        return reason

    def close(self) -> None:
        """Hang up, which ends it."""
        self.channel.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            assert self.process.wait(20) == 0
        self.process.kill()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A scorer, warm."""
    running = Server(tmp_path_factory.mktemp("scorer"))
    yield running
    running.close()


# ---------------------------------------------------------------------------
# Models. Each mixes a stream of width 16 in its own way


class Mixer(nn.Module):
    """Embeds, mixes, predicts; without a mix of its own, from the last token alone."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.inner = nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.mix(self.embedding(tokens), tokens))
        return logits

    def mix(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        return x


Mix = Callable[[Any, torch.Tensor, torch.Tensor], torch.Tensor]
SEALABLE: dict[str, type[Mixer]] = {"LastToken": Mixer}
UNSEALABLE: dict[str, tuple[type[Mixer], str]] = {}


def sealable(kind: type[Mixer]) -> type[Mixer]:
    SEALABLE[kind.__name__] = kind
    return kind


def unsealable(reason: str) -> Callable[[type[Mixer]], type[Mixer]]:
    """A kind that is refused with a line like that regular expression."""

    def remember(kind: type[Mixer]) -> type[Mixer]:
        UNSEALABLE[kind.__name__] = kind, reason
        return kind

    return remember


def heads(x: torch.Tensor, number: int) -> torch.Tensor:
    return x.unflatten(2, (number, -1)).transpose(1, 2)


@sealable
class Attention(Mixer):
    def mix(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        q = heads(x, 2)
        return F.scaled_dot_product_attention(q, q, q, is_causal=True).transpose(1, 2).flatten(2)


@sealable
class GroupedQueries(Mixer):
    def mix(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        q, k = heads(x, 4), heads(x[..., :8], 2)
        return (
            F.scaled_dot_product_attention(q, k, k, is_causal=True, enable_gqa=True)
            .transpose(1, 2)
            .flatten(2)
        )


@sealable
class Alibi(Mixer):
    def mix(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        places = torch.arange(x.shape[1], device=x.device)
        bias = (places - places[:, None]).float()
        bias = bias.masked_fill(bias > 0, -torch.inf)
        return (x @ x.mT / 4 + bias).softmax(-1) @ x


@sealable
class MaskInABuffer(Mixer):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.register_buffer("mask", torch.full((LENGTH, LENGTH), -torch.inf).triu(1), persistent=False)

    def mix(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.attention(x, x, x, attn_mask=self.mask, need_weights=False)[0]
        return y


class Experts(Mixer):
    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.Parameter(torch.randn(3, WIDTH, WIDTH) / 4)
        self.router = nn.Linear(WIDTH, 3)


@sealable
class DenseExperts(Experts):
    def mix(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        gates, chosen = self.router(x).softmax(-1).topk(2, -1)
        gates = torch.zeros_like(self.router(x)).scatter(-1, chosen, gates)
        return torch.einsum("btd,ndf,btn->btf", x, self.experts, gates)


@sealable
class RaggedExperts(Experts):
    def mix(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        flat = x.flatten(0, 1)
        chosen = self.router(flat).argmax(-1)
        out = torch.zeros_like(flat)
        for number, expert in enumerate(self.experts):
            at = torch.nonzero(chosen == number).squeeze(-1)
            out = out.index_add(0, at, flat[at] @ expert)
        return out.view_as(x)


@sealable
class SortedExperts(Experts):
    def mix(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        flat = x.flatten(0, 1)
        chosen = self.router(flat).argmax(-1)
        order = chosen.argsort(stable=True)
        y = torch.bmm(flat[order][:, None], self.experts[chosen[order]])[:, 0]
        return torch.zeros_like(flat).index_copy(0, order, y).view_as(x)


@sealable
class Convolution(Mixer):
    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Conv1d(WIDTH, WIDTH, 4, groups=WIDTH)

    def mix(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.kernel(F.pad(x.mT, (3, 0))).mT
        return y


@sealable
class LongConvolution(Mixer):
    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(WIDTH, LENGTH) / 10)

    def mix(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        n = 2 * LENGTH  # long enough for nothing to wrap around
        y = torch.fft.irfft(torch.fft.rfft(x.mT, n) * torch.fft.rfft(self.kernel, n), n)
        return y[..., :LENGTH].mT


@sealable
class LinearAttention(Mixer):
    def mix(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        return torch.einsum("btdf,btf->btd", (x[..., None] * x[..., None, :]).cumsum(1), x) / 50


@sealable
class Recurrent(Mixer):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(WIDTH, WIDTH)

    def mix(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        states = [x.new_zeros(x.shape[0], WIDTH)]
        for step in x.unbind(1):
            states.append(self.cell(step, states[-1]))
        return torch.stack(states[1:], 1)


@sealable
class LongShortTermMemory(Mixer):
    def __init__(self) -> None:
        super().__init__()
        self.memory = nn.LSTM(WIDTH, WIDTH, batch_first=True)

    def mix(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        half = self.memory(x[:, : LENGTH // 2])[0]
        return torch.cat([half, x[:, LENGTH // 2 :]], 1)


@sealable
class HashedBigrams(Mixer):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(503, WIDTH)

    def mix(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        before = F.pad(tokens, (1, 0))[:, :-1]
        return x + self.table(torch.bitwise_xor(36313 * tokens, 27191 * before) % 503)


class Squared(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return 2 * ctx.saved_tensors[0] * gradient


@sealable
class OwnGradient(Mixer):
    def mix(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = Squared.apply(x)
        return y


@sealable
class ComplexRotary(Mixer):
    def __init__(self) -> None:
        super().__init__()
        self.turns = torch.polar(torch.ones(LENGTH, 8), torch.randn(LENGTH, 8))  # a mere attribute

    def mix(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        return torch.view_as_real(torch.view_as_complex(x.unflatten(2, (-1, 2))) * self.turns).flatten(2)


@sealable
class InPlace(Mixer):
    def mix(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        x[:, 1:] += x[:, :-1] / 2
        return x.relu_()


@sealable
class QuantizedHead(Mixer):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("bytes", torch.randint(-127, 127, (VOCABULARY, WIDTH), dtype=torch.int8))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.embedding(tokens) @ self.get_buffer("bytes").float().t() / 64
        return logits


@sealable
class TiedAndViewed(Mixer):
    def __init__(self) -> None:
        super().__init__()
        self.head.weight = self.embedding.weight
        self.register_buffer("few", self.embedding.weight.detach()[:3])

    def mix(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        return x + self.get_buffer("few").sum(0)


@sealable
class NormedWeight(Mixer):
    def __init__(self) -> None:
        super().__init__()
        nn.utils.parametrizations.weight_norm(self.inner)

    def mix(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.inner(x)
        return y


@sealable
class DropoutInEvalMode(Mixer):
    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)

    def mix(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.dropout(x)
        return y


@sealable
class CompiledInside(Mixer):
    def __init__(self) -> None:
        super().__init__()
        self.block = torch.compile(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU()), backend="eager")

    def mix(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.block(x)
        return y


@sealable
class OwnAutocast(Mixer):
    def mix(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.inner(x).float()


# ---------------------------------------------------------------------------
# Models that cannot be sealed


@unsealable(r"aten\.empty_like reads memory that nobody wrote: use zeros_like.* \(sealed_models\.py:\d+\)")
class StaleMemory(Mixer):
    def mix(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        return x + torch.empty_like(x).clamp(-1, 1)


@unsealable(r"aten\.dropout is random: leave it out in eval mode \(sealed_models\.py:\d+\)")
class DropoutAlways(Mixer):
    def mix(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        return F.dropout(x, 0.1, training=True)


@unsealable(r"aten\.randn_like is random")
class Noise(Mixer):
    def mix(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        return x + torch.randn_like(x)


@unsealable("attention drops out at random: pass dropout_p=0 in eval mode")
class AttentionDropout(Mixer):
    def mix(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(x, x, x, dropout_p=0.1, is_causal=True)


@unsealable(r"aten\.batch_norm takes statistics of all positions: use rms_norm")
class BatchStatistics(Mixer):
    def mix(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        return F.batch_norm(x.mT, None, None, training=True).mT


@unsealable("the forward pass changes a buffer: memory")
class Remembering(Mixer):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("memory", torch.zeros(WIDTH))

    def mix(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        self.get_buffer("memory").add_(x.mean((0, 1)))
        return x + self.get_buffer("memory")


@unsealable(r"the forward pass branches on data: use torch\.where")
class Branching(Mixer):
    def mix(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        return 2 * x if x.sum() > 0 else x


@unsealable("the forward pass leaves torch for numpy")
class ThroughNumpy(Mixer):
    def mix(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        return x + torch.from_numpy(x.detach().numpy() * 1.0)


@unsealable("the forward pass has a fixed batch size")
class FixedBatch(Mixer):
    def mix(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        return torch.stack([row * (i + 1) for i, row in enumerate(x.unbind(0))])


@unsealable("flex_attention cannot be sealed: use scaled_dot_product_attention in the evaluation path")
class FlexAttention(Mixer):
    def mix(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        from torch.nn.attention.flex_attention import flex_attention

        def causal(score: Any, _batch: Any, _head: Any, at: Any, other: Any) -> torch.Tensor:
            return torch.where(at >= other, score, -float("inf"))

        y = flex_attention(x[:, None], x[:, None], x[:, None], score_mod=causal)
        assert isinstance(y, torch.Tensor)
        return y[:, 0]


@torch.library.custom_op("sealed_models::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    return x * 2


@twice.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


@unsealable(r"sealed_models\.twice\.default cannot be sealed: use torch's own operators")
class OwnKernel(Mixer):
    def mix(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = twice(x)
        return y


@sealable
class BigConstant(Mixer):
    def mix(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        return x + torch.tensor([[float(i)] * 48 for i in range(LENGTH)])[:, :WIDTH]


@unsealable("forward has to return the logits alone")
class TwoOutputs(Mixer):
    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return super().forward(tokens), None  # type: ignore[return-value]
