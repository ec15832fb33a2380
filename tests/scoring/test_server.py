"""The scorer: weights are those of the run, and no model outlives its scoring."""

import dataclasses
import os
import re
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - everybody's name for it

from pytest_autoresearch.errors import ModelRefused
from pytest_autoresearch.scoring.causality import CausalityProbes
from pytest_autoresearch.scoring.client import MEMORY
from pytest_autoresearch.scoring.interpreter import Interpreter
from pytest_autoresearch.system.files import read_bounded
from tests.sealed_models import (
    LENGTH,
    TOKENS,
    VOCABULARY,
    Attention,
    Mixer,
    OwnAutocast,
    Server,
    prepare,
    put_together,
    scoring,
    sealed,
    server,
    taken_apart,
)

__all__ = ["server"]  # a fixture

CPU = torch.device("cpu")


def made(kind: type[Mixer]) -> Mixer:
    torch.manual_seed(0)
    return kind().eval()


def scored(content: bytes, announced: str, share: float = 1.0) -> float:
    return scoring(content, announced).probed(share).score


def probed(
    model: Callable[[torch.Tensor], torch.Tensor], share: float = 1.0
) -> tuple[float, CausalityProbes]:
    """The score that a model claims, and its probes."""
    tokenizer = prepare.Tokenizer.load()
    probes = CausalityProbes(tokenizer.token_bytes, share)
    claimed = prepare.evaluate_bpb(model, tokenizer, 32, probes)
    with torch.no_grad():
        probes.run(model, prepare.surprise)
    return claimed, probes


# ---------------------------------------------------------------------------
# Weights, and what is computed from them


def test_what_is_trained_after_the_clock_stopped_does_not_count() -> None:
    model = made(Attention)
    _, announced = sealed(model)
    with torch.no_grad():
        model.head.weight[0, 0] += 1e-6
    with pytest.raises(
        ModelRefused, match=r"^it is not the model that was announced when the clock stopped$"
    ):
        scored(sealed(model)[0], announced)


def test_constants_may_be_made_in_the_forward_pass() -> None:
    class Constant(Mixer):
        def mix(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
            return x * torch.tensor([0.5, 2.0]).repeat(8)

    assert scored(*sealed(made(Constant))) > 0


def test_a_model_remembers_nothing() -> None:
    class Counting(Mixer):
        calls = 0

        def mix(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return x * self.calls

    content, announced = sealed(made(Counting))
    model = Interpreter(content, announced, CPU)
    tokens = torch.randint(VOCABULARY, (5, LENGTH))
    first = model(tokens)
    assert torch.equal(model(tokens), first)
    assert torch.equal(model(tokens), first)


def test_memory_is_given_back_as_soon_as_nobody_needs_it() -> None:
    class Deep(Mixer):
        def mix(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
            for _ in range(50):
                x = x + 1
            return x

    content, announced = sealed(made(Deep))
    model = Interpreter(content, announced, CPU)
    live = []
    for number, call in model._calls.items():
        original = call.function

        def counting(*args: Any, original: Any = original, **kwargs: Any) -> Any:
            live.append(sum(value() is not None for value in alive))
            result = original(*args, **kwargs)
            alive.append(weakref.ref(result))
            return result

        model._calls[number] = dataclasses.replace(call, function=counting)
    alive: list[Any] = []
    model(TOKENS)
    assert max(live) <= 2


class Casting(Mixer):
    """With a weight that is cast, and one that is squared, in every pass."""

    def mix(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        return x * self.inner.bias.bfloat16().float() + self.inner.bias.square()


def test_a_cast_of_a_weight_is_computed_once_and_arithmetic_for_every_row() -> None:
    """Or a model could train itself in the time that it may predict for."""
    model = Interpreter(*sealed(made(Casting)), CPU)
    called = []
    for number, call in model._calls.items():

        def counting(*args: Any, call: Any = call, **kwargs: Any) -> Any:
            called.append(call.name)
            return call.function(*args, **kwargs)

        model._calls[number] = dataclasses.replace(call, function=counting)
    for _ in range(3):
        assert torch.equal(model(TOKENS), made(Casting)(TOKENS))
    assert called.count("aten.to.dtype") == 2
    assert called.count("aten.square.default") == 3


def test_float32_starts_from_the_weights_and_not_from_their_casts() -> None:
    model = Interpreter(*sealed(made(Casting)), CPU)
    model(TOKENS)
    model.widen()
    bias = made(Casting).inner.bias
    with torch.no_grad():
        exact = made(Casting)
        exact.mix = lambda x, _tokens: x * bias + bias.square()  # type: ignore[method-assign]
        assert torch.equal(model(TOKENS), exact(TOKENS))


def test_no_model_has_itself_judged_by_its_words(server: Server) -> None:
    graph, weights = taken_apart(sealed(made(Mixer))[0])
    words = "CUDA error: out of memory, all CUDA-capable devices are busy or unavailable"
    tokens = graph.index(["tokens"])
    content = put_together([*graph, ["aten.einsum.default", [words, [{"node": tokens}]], {}]], weights)
    assert "cannot be applied" in server.refusal(content)


def test_an_accelerator_without_room_is_no_fault_of_an_operator() -> None:
    model = Interpreter(*sealed(made(Mixer)), CPU)

    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    number, call = next(iter(model._calls.items()))
    model._calls[number] = dataclasses.replace(call, function=full)
    with pytest.raises(torch.OutOfMemoryError):
        model(TOKENS)


def test_a_vocabulary_may_be_padded_but_not_cut() -> None:
    class Padded(Mixer):
        more = 3

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return F.pad(super().forward(tokens), (0, self.more), value=-30.0)

    assert scored(*sealed(made(Padded))) == pytest.approx(probed(made(Mixer))[0], rel=1e-5)
    Padded.more = -1
    with pytest.raises(ModelRefused, match=r"^its vocabulary is 60, not 61$"):
        scored(*sealed(made(Padded)))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_model_without_sense_is_refused(value: float) -> None:
    with pytest.raises(ModelRefused, match=r"^its score is (nan|inf)$"):
        scored(*sealed(lambda tokens: torch.full((*tokens.shape, VOCABULARY), value)))


# ---------------------------------------------------------------------------
# The process


def constant(value: float) -> tuple[bytes, list[str]]:
    """A model that always says *value*; prepare.py takes some values for orders."""
    return sealed(lambda tokens: torch.full((*tokens.shape, VOCABULARY), float(value)))


def test_it_scores_one_model_after_the_other(server: Server) -> None:
    for kind in (Attention, Mixer, OwnAutocast):
        answer = server.score(*sealed(made(kind)))
        assert list(answer) == ["score", "predicting", "nodes"]
        assert answer["score"] == pytest.approx(probed(made(kind))[0], rel=1e-6)


def test_a_path_will_do(server: Server, tmp_path: Path) -> None:
    content, announced = sealed(made(Attention))
    (tmp_path / "model").write_bytes(content)
    answer = server.ask({"score": str(tmp_path / "model"), "digest": announced})
    assert answer["score"] == pytest.approx(probed(made(Attention))[0], rel=1e-6)


def test_a_claim_is_scored_on_text_of_its_own(server: Server, tmp_path: Path) -> None:
    content, announced = sealed(made(Attention))
    (tmp_path / "model").write_bytes(content)
    request = {"score": str(tmp_path / "model"), "digest": announced}
    own, claim = (
        prepare.evaluate_bpb(made(Attention), prepare.Tokenizer.load(), 32, None, split)
        for split in ("val", "claim")
    )
    assert own != pytest.approx(claim, rel=1e-4)
    assert server.ask(request | {"split": "val"})["score"] == pytest.approx(own, rel=1e-6)
    assert server.ask(request | {"split": "claim"})["score"] == pytest.approx(claim, rel=1e-6)
    assert list(server.ask(request | {"split": "train"})) == ["refused"]


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        (1001, "scoring was killed by SIGSEGV"),
        (1004, "scoring ended with exit code 7"),
        (1005, 'scoring failed: ZeroDivisionError: "of prepare.py\'s own"'),
    ],
)
def test_whatever_a_model_does_to_its_scorer_the_next_is_scored(
    server: Server, order: float, reason: str
) -> None:
    assert server.refusal(*constant(order)) == reason
    assert "score" in server.score(*constant(0))


def test_nothing_of_one_model_reaches_the_next(server: Server) -> None:
    before = server.score(*sealed(made(Attention)))["score"]
    server.score(*constant(1002))  # it has blotted out the validation split
    assert server.score(*sealed(made(Attention)))["score"] == before


def test_no_model_answers_for_the_next(server: Server) -> None:
    before = server.score(*sealed(made(Attention)))["score"]
    for order in (1003, 1006):  # both write wherever they can
        assert server.refusal(*constant(order)) == "scoring ended with exit code 0"
    assert server.score(*sealed(made(Attention)))["score"] == before


def endless() -> tuple[bytes, list[str]]:
    def model(tokens: torch.Tensor) -> torch.Tensor:
        x = torch.full((2000, 2000), 1e-3)
        for _ in range(100):
            x = x @ x
        return x[0, 0] + torch.zeros(*tokens.shape, VOCABULARY)

    return sealed(model)


def test_time_is_limited(server: Server) -> None:
    began = time.monotonic()
    assert server.refusal(*endless(), seconds=0.5) == "scoring took more than 0.5 s"
    assert time.monotonic() - began < 5


def test_memory_is_limited(server: Server) -> None:
    def model(tokens: torch.Tensor) -> torch.Tensor:
        huge = torch.zeros(1, 1).expand(1 << 16, 1 << 15).clone()
        return huge[0, 0] + torch.zeros(*tokens.shape, VOCABULARY)

    content, announced = sealed(model)
    assert re.match(r"aten\.clone\.default cannot be applied: .* memory", server.refusal(content, announced))
    assert "score" in server.score(*constant(0), memory=2 << 30)


def test_size_is_limited(server: Server) -> None:
    content, announced = sealed(made(Attention))
    assert server.refusal(content, announced, size=1000) == (
        f"it has {len(content):,} bytes, at most 1,000 are allowed"
    )
    assert "score" in server.score(content, announced, size=len(content))


def test_only_a_regular_file_is_read(server: Server, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "model").write_bytes(sealed(made(Mixer))[0])
    (tmp_path / "link").symlink_to("model")
    request = {"score": True, "digest": sealed(made(Mixer))[1]}
    assert server.ask(request, reading) == {"refused": "it is no regular file"}
    assert server.ask({**request, "score": str(tmp_path / "fifo")}) == {"refused": "it is no regular file"}
    assert "refused" in server.ask({**request, "score": str(tmp_path / "link")})
    assert "refused" in server.ask({**request, "score": str(tmp_path / "missing")})
    os.close(reading)
    os.close(writing)


def test_the_author_may_keep_the_file_open_and_change_nothing(tmp_path: Path) -> None:
    content, announced = sealed(made(Attention))
    path = tmp_path / "model"
    path.write_bytes(content)
    model = Interpreter(b"".join(read_bounded(path, 1 << 20)), announced, CPU)
    expected = model(TOKENS)
    with path.open("r+b") as file:
        file.write(bytes(len(content)))
        file.truncate(10)
    assert torch.equal(model(TOKENS), expected)


def test_hanging_up_ends_a_scoring(tmp_path: Path) -> None:
    server = Server(tmp_path)
    content, announced = endless()
    with (tmp_path / "model").open("w+b") as file:
        file.write(content)
        file.flush()
        server.channel.send(
            {"score": True, "digest": announced, "share": 0.1, "seconds": 300.0, "memory": MEMORY},
            file.fileno(),
        )
    time.sleep(0.5)
    server.close()


def test_the_graph_can_be_read_by_a_person() -> None:
    graph, weights = taken_apart(sealed(made(Mixer))[0])
    assert graph[-1][0] == "aten.linear.default"
    assert ["tokens"] in graph
    assert sum(node[0] == "weight" for node in graph) == len(weights) == 3
    assert put_together(graph, weights)
