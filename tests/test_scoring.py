"""The scorer: looking ahead does not pay, weights are those of the run, and no model outlives its scoring."""

import dataclasses
import math
import os
import re
import statistics
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - everybody's name for it

from pytest_autoresearch.measuring import scoring
from pytest_autoresearch.measuring.probes import Probes
from pytest_autoresearch.measuring.scoring import score
from pytest_autoresearch.measuring.sealed import Refused, Sealed
from tests.sealed_models import (
    LENGTH,
    SEALABLE,
    TOKENS,
    VOCABULARY,
    Attention,
    LongConvolution,
    Mixer,
    OwnAutocast,
    RaggedExperts,
    Server,
    SortedExperts,
    prepare,
    put_together,
    sealed,
    server,
    taken_apart,
)

__all__ = ["server"]  # a fixture

ROWS: int = prepare.ROWS
CPU = torch.device("cpu")


def made(kind: type[Mixer]) -> Mixer:
    torch.manual_seed(0)
    return kind().eval()


def scored(content: bytes, announced: str, share: float = 1.0) -> float:
    return score(prepare, content, announced, share).score


def probed(model: Callable[[torch.Tensor], torch.Tensor], share: float = 1.0) -> tuple[float, Probes]:
    """The score that a model claims, and its probes."""
    tokenizer = prepare.Tokenizer.load()
    probes = Probes(tokenizer.token_bytes, share)
    claimed = prepare.evaluate_bpb(model, tokenizer, 32, probes)
    with torch.no_grad():
        probes.run(model, prepare.surprise)
    return claimed, probes


# ---------------------------------------------------------------------------
# Causality

EXACT = [
    kind
    for name, kind in SEALABLE.items()
    if name not in {"LongConvolution", "RaggedExperts", "SortedExperts"}
]


@pytest.mark.parametrize("kind", EXACT, ids=lambda kind: kind.__name__)
def test_an_honest_model_changes_nowhere_by_anything(kind: type[Mixer]) -> None:
    _, probes = probed(made(kind))
    assert probes.changes == [0.0] * ROWS
    assert probes.factor == 1.0


@pytest.mark.parametrize("kind", [LongConvolution, RaggedExperts, SortedExperts])
def test_what_only_rounds_differently_is_not_caught(kind: type[Mixer]) -> None:
    _, probes = probed(made(kind))
    assert max(map(abs, probes.changes)) < scoring.TOLERANCE / 10
    assert probes.factor == pytest.approx(1.0, abs=1e-6)


def test_sixteen_bits_round_within_their_own_tolerance() -> None:
    model = made(RaggedExperts).to(torch.bfloat16)
    content, announced = sealed(model)
    found = Sealed(content, announced, CPU)
    assert found.coarse
    _, probes = probed(found)
    assert probes.caught(scoring.COARSE_TOLERANCE) == 0


def test_as_many_rows_are_probed_as_asked_for() -> None:
    assert len(probed(made(Mixer), 1.0)[1].changes) == ROWS
    # One of the two batches of 32 rows, and the short one, which is alone of its shape.
    assert len(probed(made(Mixer), 0.1)[1].changes) == 32 + 6


def peeking(tokens: torch.Tensor) -> torch.Tensor:
    """For each position, the logits of somebody who has seen the next token."""
    return 9 * F.one_hot(tokens.roll(-1, 1), VOCABULARY).float()


class Base(Mixer):
    """Honest but for what *hint* adds to its logits."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return super().forward(tokens) + self.hint(tokens)

    def hint(self, tokens: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


class Peek(Base):
    def hint(self, tokens: torch.Tensor) -> torch.Tensor:
        return peeking(tokens)


class PeekNowAndThen(Base):
    """At every tenth context."""

    def hint(self, tokens: torch.Tensor) -> torch.Tensor:
        chosen = (tokens * 7919 + tokens.roll(1, 1) * 104729) % 10 == 0
        return torch.where(chosen[..., None], peeking(tokens), 0.0)


class BlockMean(Base):
    """A summary of each block of eight, handed to all of its positions."""

    def hint(self, tokens: torch.Tensor) -> torch.Tensor:
        blocks = F.one_hot(tokens, VOCABULARY).float().unflatten(1, (-1, 8)).sum(2, keepdim=True)
        return 3 * blocks.expand(-1, -1, 8, -1).flatten(1, 2)


class Circular(Base):
    """A convolution through a transform that is too short, so that the end wraps around to the beginning."""

    def hint(self, tokens: torch.Tensor) -> torch.Tensor:
        kernel = F.one_hot(torch.tensor(LENGTH - 1), LENGTH).float()
        spectrum = torch.fft.rfft(kernel)[:, None] * torch.fft.rfft(
            F.one_hot(tokens, VOCABULARY).float(), dim=1
        )
        return 5 * torch.fft.irfft(spectrum, LENGTH, dim=1)


class BatchStatistics(Base):
    """How often each token occurs in the batch, of all rows and futures."""

    def hint(self, tokens: torch.Tensor) -> torch.Tensor:
        return (1 + F.one_hot(tokens, VOCABULARY).float().sum((0, 1))).log()


class OtherRows(Base):
    """How often each token occurs in the past of the other rows, and only there."""

    def hint(self, tokens: torch.Tensor) -> torch.Tensor:
        seen = F.one_hot(tokens, VOCABULARY).float().cumsum(1)
        return (1 + seen.sum(0, keepdim=True) - seen).log()


class BeforeSpecials(Base):
    """Where a special token follows."""

    def hint(self, tokens: torch.Tensor) -> torch.Tensor:
        ahead = tokens.roll(-1, 1)
        return torch.where((ahead >= VOCABULARY - 2)[..., None], 0.0, 1e-2) * peeking(tokens)


CHEATS = [Peek, PeekNowAndThen, BlockMean, Circular, BatchStatistics, OtherRows, BeforeSpecials]


@pytest.mark.parametrize("kind", CHEATS)
def test_looking_ahead_is_caught(kind: type[Base]) -> None:
    with pytest.raises(Refused, match=r"^it is not causal: \d+ of 70 probes changed"):
        scored(*sealed(made(kind)))


def test_hiding_behind_rounding_is_caught_too() -> None:
    class Faint(BlockMean):
        def hint(self, tokens: torch.Tensor) -> torch.Tensor:
            return super().hint(tokens).bfloat16().float() / 16

    assert probed(made(Faint))[1].caught(scoring.COARSE_TOLERANCE) == 0
    with pytest.raises(Refused, match=r"^it is not causal: 0\.\d\d\d nats a token come from"):
        scored(*sealed(made(Faint)))


def test_a_lucky_draw_lowers_no_score() -> None:
    class Erratic(Base):
        """Surer or less sure of itself as the future has it: to no good, on the mean."""

        def hint(self, tokens: torch.Tensor) -> torch.Tensor:
            known = F.one_hot(tokens, VOCABULARY).float()
            return known * (tokens.roll(-1, 1) * 7919 % 3 - 1)[..., None]

    drawn = [probed(made(Erratic))[1] for _ in range(10)]
    assert min(sum(probes._estimates) for probes in drawn) < 0
    assert min(probes.factor for probes in drawn) >= 1
    assert max(statistics.fmean(probes.changes) for probes in drawn) > scoring.TOLERANCE
    assert max(probes.rise() for probes in drawn) == 0  # nor does it convict


def test_a_share_of_the_rows_is_enough_for_the_coarser_ones() -> None:
    for kind in (Peek, BlockMean, Circular, BatchStatistics, OtherRows):
        with pytest.raises(Refused, match=r"of 38 probes"):
            scored(*sealed(made(kind)), share=0.1)


@pytest.mark.parametrize("kind", [Peek, PeekNowAndThen, BlockMean, Circular])
def test_what_looking_ahead_brings_is_taken_back(kind: type[Base]) -> None:
    honest, _ = probed(made(Mixer))
    results = [probed(made(kind)) for _ in range(5)]
    assert results[0][0] < honest  # it brings something
    assert statistics.fmean(claimed * probes.factor for claimed, probes in results) > honest


@pytest.mark.parametrize("share", [1.0, 0.1])
def test_the_score_expected_of_a_model_is_that_of_its_causal_part(share: float) -> None:
    """Of one that knows the future at every position, and otherwise that every token is as likely."""
    claimed, charged, brought = [], [], []
    for _ in range(20):
        found, probes = probed(peeking, share)
        claimed.append(found)
        charged.append(found * probes.factor)
        brought.append(math.fsum(probes._estimates))
    # Without a future it bets on a wrong token, nearly always; the last position has none to look at.
    tokens = prepare.VALIDATION
    lost = torch.stack(
        [prepare.surprise(peeking(tokens[:, :-1].roll(s, 0)), tokens[:, 1:]) for s in range(1, 5)]
    )
    counted = torch.tensor(prepare.Tokenizer.token_bytes)[tokens[:, 1:]] > 0
    size = torch.tensor(prepare.Tokenizer.token_bytes)[tokens[:, 1:]].sum().item()
    expected = (lost * counted).sum((1, 2)).mean().item() / size / math.log(2)
    assert max(claimed) < expected / 3
    causal = [found + nats / size / math.log(2) for found, nats in zip(claimed, brought, strict=True)]
    assert statistics.fmean(causal) == pytest.approx(expected, rel=0.03)
    assert statistics.fmean(charged) > expected  # what is charged is no less, but for bad luck


def test_the_score_is_less_what_looking_ahead_brought(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "TOLERANCE", math.inf)
    claimed, _ = probed(made(Peek))
    assert scored(*sealed(made(Peek))) > 2 * claimed


def test_a_change_to_no_number_is_caught() -> None:
    probes = Probes(prepare.Tokenizer.token_bytes, 1.0)
    probes._largest = [0.0, math.nan, math.inf, 2.0]
    assert probes.caught(1.0) == 3


def test_half_of_the_futures_open_with_a_special_or_a_random_token() -> None:
    probes = Probes(prepare.Tokenizer.token_bytes, 1.0)
    future = torch.full((4000, 3), 7)
    opened = probes._opened(future, torch.ones(4000, 1, dtype=torch.int64))
    assert torch.equal(opened[:, [0, 2]], future[:, [0, 2]])
    assert (opened[:, 1] >= VOCABULARY - 2).float().mean() == pytest.approx(1 / 4, abs=0.05)
    assert (opened[:, 1] == 7).float().mean() == pytest.approx(1 / 2, abs=0.05)


def test_what_a_probed_position_cannot_see_no_earlier_one_can() -> None:
    """Who looks far ahead at one position is caught wherever behind it the future is replaced."""

    class FirstAlone(Base):
        def hint(self, tokens: torch.Tensor) -> torch.Tensor:
            last = F.one_hot(tokens[:, -1:], VOCABULARY).float()
            return F.pad(last, (0, 0, 0, LENGTH - 1))

    probes = probed(made(FirstAlone))[1]
    assert probes.caught(scoring.TOLERANCE) > len(probes.changes) / 2


def test_every_batch_of_probes_is_drawn_afresh() -> None:
    assert probed(made(Peek))[1].changes != probed(made(Peek))[1].changes


def test_a_probe_leaves_the_past_alone_and_puts_each_row_in_its_place() -> None:
    seen: list[torch.Tensor] = []

    def model(tokens: torch.Tensor) -> torch.Tensor:
        seen.append(tokens)
        return torch.zeros(*tokens.shape, VOCABULARY)

    probed(model)
    rows = prepare.VALIDATION[:, :-1]
    evaluated, probes = seen[:3], seen[3:]
    assert [len(batch) for batch in probes] == [len(batch) for batch in evaluated] == [32, 32, 6]
    everywhere = []
    for batch in probes[:2]:
        begun, ended = [], []
        for place, row in enumerate(batch):
            past = {k: (rows[k] == row).long().cumprod(0).sum().item() for k in (place, place + 32)}
            assert max(past.values()) >= 1
            begun.append(max(past, key=lambda k: past[k]))
            if past[begun[-1]] < LENGTH - 5:
                ended += [k for k in range(64) if torch.equal(rows[k, -4:], row[-4:])]
        assert len(ended) > 10
        assert not set(begun) & set(ended)  # whose future a row gets is not in the batch itself
        everywhere += begun
    assert sorted(everywhere) == list(range(64))
    assert sorted(begun) != begun  # the rows of a batch are of several


def test_one_batch_alone_is_probed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "VALIDATION", prepare.VALIDATION[:1])
    assert probed(made(Mixer))[1].changes == [0.0]
    assert sum(probed(made(Peek))[1].caught(1e-3) for _ in range(5)) >= 3


def test_rows_without_text_are_not_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = prepare.VALIDATION.clone()
    tokens[3] = VOCABULARY - 1
    monkeypatch.setattr(prepare, "VALIDATION", tokens)
    assert len(probed(made(Mixer))[1].changes) == ROWS - 1


# ---------------------------------------------------------------------------
# Weights, and what is computed from them


def test_what_is_trained_after_the_clock_stopped_does_not_count() -> None:
    model = made(Attention)
    _, announced = sealed(model)
    with torch.no_grad():
        model.head.weight[0, 0] += 1e-6
    with pytest.raises(Refused, match=r"^it is not the model that was announced when the clock stopped$"):
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
    model = Sealed(content, announced, CPU)
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
    model = Sealed(content, announced, CPU)
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


def test_a_vocabulary_may_be_padded_but_not_cut() -> None:
    class Padded(Mixer):
        more = 3

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return F.pad(super().forward(tokens), (0, self.more), value=-30.0)

    assert scored(*sealed(made(Padded))) == pytest.approx(probed(made(Mixer))[0], rel=1e-5)
    Padded.more = -1
    with pytest.raises(Refused, match=r"^its vocabulary is 60, not 61$"):
        scored(*sealed(made(Padded)))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_model_without_sense_is_refused(value: float) -> None:
    with pytest.raises(Refused, match=r"^its score is (nan|inf)$"):
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
        (1001, "scoring ended by SIGSEGV"),
        (1004, "scoring ended with exit code 7"),
        (1005, "scoring failed: ZeroDivisionError: of prepare.py's own"),
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
    assert server.refusal(content, announced, size=1000) == "it is larger than 1,000 bytes"
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
    model = Sealed(scoring._read(str(path), 1 << 20), announced, CPU)
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
        server.wire.send({"score": True, "digest": announced, "share": 0.1, "seconds": 300.0}, file.fileno())
    time.sleep(0.5)
    server.close()


def test_the_graph_can_be_read_by_a_person() -> None:
    graph, weights = taken_apart(sealed(made(Mixer))[0])
    assert graph[-1][0] == "aten.linear.default"
    assert ["tokens"] in graph
    assert sum(node[0] == "weight" for node in graph) == len(weights) == 3
    assert put_together(graph, weights)
