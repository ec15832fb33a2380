"""Causality: looking ahead does not pay, nor does learning from other rows, and the honest lose nothing."""

import math
import statistics
import time
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - everybody's name for it
from torch import nn

from pytest_autoresearch.errors import ModelRefused
from pytest_autoresearch.scoring import evaluation
from pytest_autoresearch.scoring.causality import CausalityProbes
from pytest_autoresearch.scoring.interpreter import Interpreter
from tests.looking_ahead import (
    Base,
    BatchStatistics,
    BeforeSpecials,
    BlockMean,
    Circular,
    Covered,
    Faint,
    Peek,
    PeekNowAndThen,
    SoftTopicOfOtherRows,
    TopicOfOtherRows,
    TopicOfTheRow,
    evaluated,
    made,
    peeking,
    probed,
)
from tests.sealed_models import (
    LENGTH,
    SEALABLE,
    VOCABULARY,
    WIDTH,
    LongConvolution,
    Mixer,
    RaggedExperts,
    SortedExperts,
    prepare,
    scoring,
    sealed,
)

ROWS: int = prepare.ROWS


def scored(model: Any, share: float = 1.0) -> float:
    """The score of a model that is sealed, with *share* of the rows probed."""
    return scoring(*sealed(model)).probed(share).score


# ---------------------------------------------------------------------------
# The honest

EXACT = [
    kind
    for name, kind in SEALABLE.items()
    if name not in {"LongConvolution", "RaggedExperts", "SortedExperts"}
]


@pytest.mark.parametrize("kind", EXACT, ids=lambda kind: kind.__name__)
def test_an_honest_model_changes_nowhere_by_anything(kind: type[Mixer]) -> None:
    _, probes = probed(made(kind))
    assert set(probes.changes) == set(probes._largest) == {0.0}
    assert probes.factor == 1.0


@pytest.mark.parametrize("kind", [LongConvolution, RaggedExperts, SortedExperts])
def test_what_only_rounds_differently_is_not_caught(kind: type[Mixer]) -> None:
    _, probes = probed(made(kind))
    assert max(probes._largest) < evaluation.TOLERANCE / 10
    assert probes.factor == pytest.approx(1.0, abs=1e-6)


@pytest.fixture
def fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many probes as it takes: one in forty sees a router tip."""
    monkeypatch.setattr(evaluation, "THOROUGH", 700)


class Tipping(LongConvolution):
    """Layers of bfloat16 experts behind an FFT, whose rounding tips their router now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(WIDTH, 8, dtype=torch.bfloat16)
        self.experts = nn.Parameter(torch.randn(8, WIDTH, WIDTH).bfloat16())

    def mix(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        for _ in range(3):
            flat = F.rms_norm(super().mix(x, tokens), (WIDTH,)).bfloat16().flatten(0, 1)
            chosen = self.router(flat).argmax(-1)
            out = flat
            for number, expert in enumerate(self.experts):
                at = torch.nonzero(chosen == number).squeeze(-1)
                out = out.index_add(0, at, flat[at] @ expert)
            x = out.view_as(x).float()
        return x


@pytest.mark.usefixtures("fewer")
def test_what_only_16_bits_round_is_scored_in_float32() -> None:
    model = made(Tipping)
    assert probed(model)[1].caught(evaluation.TOLERANCE) > 0
    assert scored(model) == pytest.approx(evaluated(model), rel=1e-2)


def test_16_bits_that_round_alike_are_scored_as_they_are() -> None:
    model = made(RaggedExperts).bfloat16()
    assert scored(model) == pytest.approx(evaluated(model), rel=1e-6)


@pytest.mark.usefixtures("fewer")
def test_bits_of_16_have_no_score_in_float32() -> None:
    class Bits(Tipping):
        def mix(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
            mixed = super().mix(x, tokens)
            return mixed + mixed.bfloat16().view(torch.int16) / 2**15

    with pytest.raises(
        ModelRefused, match=r"^it is not causal in 16 bits, and without a score in float32: aten"
    ):
        scored(made(Bits))


def test_float32_may_predict_no_longer_than_16_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Interpreter.__call__

    def slow(model: Interpreter, tokens: torch.Tensor) -> torch.Tensor:
        began = time.process_time()
        while time.process_time() - began < 0.2:
            pass
        return plain(model, tokens)

    monkeypatch.setattr(
        Interpreter, "widen", lambda _model: monkeypatch.setattr(Interpreter, "__call__", slow)
    )
    content, announced = sealed(made(Tipping))
    with pytest.raises(
        ModelRefused, match=r"without a score in float32: its predictions take more than 5\.0 s"
    ):
        scoring(content, announced, predicting=5.0).probed(1.0)


# ---------------------------------------------------------------------------
# Those that look ahead


CHEATS = [Peek, PeekNowAndThen, BlockMean, Circular, BatchStatistics, BeforeSpecials, Faint, Covered]


@pytest.mark.parametrize("kind", CHEATS)
def test_looking_ahead_is_caught(kind: type[Base]) -> None:
    with pytest.raises(ModelRefused, match=r"^it is not causal: \d+ of 1050 probes changed"):
        scored(made(kind))


def test_16_bits_are_no_second_chance_to_be_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[CausalityProbes] = []
    original = evaluation.Evaluation.probed

    def recorded(*arguments: Any) -> CausalityProbes:
        seen.append(original(*arguments))
        return seen[-1]

    monkeypatch.setattr(evaluation.Evaluation, "probed", recorded)
    with pytest.raises(ModelRefused, match="it is not causal"):
        scored(made(Covered))
    narrow, wide = (probes.changes for probes in seen)
    assert wide == narrow


def test_who_looks_ahead_in_16_bits_only_gains_nothing() -> None:
    class In16Bits(Base):
        def hint(self, tokens: torch.Tensor) -> torch.Tensor:
            rounded = torch.full((), 1.001).bfloat16().float() == 1
            return rounded * peeking(tokens)

    assert evaluated(made(In16Bits)) < evaluated(made(Mixer)) / 2
    assert scored(made(In16Bits)) == pytest.approx(evaluated(made(Mixer)), rel=1e-6)


def test_a_lucky_draw_lowers_no_score() -> None:
    class Erratic(Base):
        """Surer or less sure of itself as the future has it: to no good, on the mean."""

        def hint(self, tokens: torch.Tensor) -> torch.Tensor:
            known = F.one_hot(tokens, VOCABULARY).float()
            return known * (tokens.roll(-1, 1) * 7919 % 3 - 1)[..., None]

    drawn = [probed(made(Erratic), 0.5)[1] for _ in range(20)]
    assert min(sum(probes._estimates) for probes in drawn) < 0
    assert min(probes.factor for probes in drawn) >= 1


def test_a_share_of_the_rows_is_enough_for_the_coarser_ones() -> None:
    for kind in (Peek, BlockMean, Circular, BatchStatistics):
        with pytest.raises(ModelRefused, match=r"of 7 probes"):
            scored(made(kind), share=0.1)


@pytest.mark.parametrize("kind", [Peek, PeekNowAndThen, BlockMean, Circular])
def test_what_looking_ahead_brings_is_taken_back(kind: type[Base]) -> None:
    honest, _ = probed(made(Mixer))
    results = [probed(made(kind)) for _ in range(3)]
    assert results[0][0] < honest  # it brings something
    assert statistics.fmean(claimed * probes.factor for claimed, probes in results) > honest


@pytest.mark.parametrize("share", [1.0, 0.5])
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
    monkeypatch.setattr(evaluation, "TOLERANCE", math.inf)
    assert scored(made(Peek)) > 2 * evaluated(made(Peek))


def test_a_change_to_no_number_is_caught() -> None:
    probes = CausalityProbes(prepare.Tokenizer.token_bytes, 1.0)
    probes._largest = [0.0, math.nan, math.inf, 2.0]
    assert probes.caught(1.0) == 3


def test_what_a_probed_position_cannot_see_no_earlier_one_can() -> None:
    """Who looks far ahead at one position is caught wherever behind it the future is replaced."""

    class FirstAlone(Base):
        def hint(self, tokens: torch.Tensor) -> torch.Tensor:
            last = F.one_hot(tokens[:, -1:], VOCABULARY).float()
            return F.pad(last, (0, 0, 0, LENGTH - 1))

    probes = probed(made(FirstAlone))[1]
    assert probes.caught(evaluation.TOLERANCE) > len(probes.changes) / 2


# ---------------------------------------------------------------------------
# Those that learn from the validation text what is true of all of it


@pytest.fixture
def topic(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation text of which nine tokens in ten are one of four, of which no model knows beforehand."""
    chance = torch.Generator().manual_seed(2)
    few = torch.randint(4, (ROWS, LENGTH + 1), generator=chance)
    stray = torch.rand(few.shape, generator=chance) < 0.1
    monkeypatch.setattr(prepare, "VALIDATION", torch.where(stray, prepare.VALIDATION, few))


@pytest.mark.usefixtures("topic")
@pytest.mark.parametrize("kind", [TopicOfOtherRows, SoftTopicOfOtherRows])
def test_nothing_can_be_learned_from_other_rows(kind: type[Base]) -> None:
    alone = evaluated(made(Mixer))
    assert evaluated(made(kind)) < 0.8 * alone  # together they gain
    assert scored(made(kind)) == pytest.approx(alone, rel=1e-6)


@pytest.mark.usefixtures("topic")
def test_what_is_true_of_all_futures_is_no_secret_to_tell() -> None:
    assert evaluated(made(TopicOfTheRow)) < 0.8 * evaluated(made(Mixer))
    with pytest.raises(ModelRefused, match=r"^it is not causal: \d+ of 35 probes changed"):
        scored(made(TopicOfTheRow), share=0.5)
