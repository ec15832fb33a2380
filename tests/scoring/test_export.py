"""Sealing: what can be sealed scores as it does in its own process, and what cannot says why."""

import subprocess
import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - everybody's name for it
from torch import nn

from pytest_autoresearch.errors import ExportError
from pytest_autoresearch.scoring import operators
from pytest_autoresearch.scoring.export import Model, Trace, digest, seal
from pytest_autoresearch.scoring.interpreter import Interpreter
from tests.sealed_models import (
    LENGTH,
    ROOT,
    SEALABLE,
    TOKENS,
    UNSEALABLE,
    VOCABULARY,
    WIDTH,
    Attention,
    Mixer,
    RaggedExperts,
    TiedAndViewed,
    prepare,
    scoring,
    sealed,
    taken_apart,
)

CPU = torch.device("cpu")


def made(kind: type[Mixer]) -> Mixer:
    torch.manual_seed(0)
    return kind().eval()


def opened(model: Model) -> Interpreter:
    content, announced = sealed(model)
    return Interpreter(content, announced, CPU)


def scored(model: Model) -> float:
    content, announced = sealed(model)
    return scoring(content, announced).probed(0.1).score


def in_process(model: Model) -> float:
    found: float = prepare.evaluate_bpb(model, prepare.Tokenizer.load(), 32)
    return found


@pytest.mark.parametrize("kind", SEALABLE.values(), ids=SEALABLE.keys())
def test_it_scores_as_in_its_own_process(kind: type[Mixer]) -> None:
    model = made(kind)
    assert scored(model) == pytest.approx(in_process(model), rel=1e-6)


@pytest.mark.parametrize(("kind", "reason"), UNSEALABLE.values(), ids=UNSEALABLE.keys())
def test_what_cannot_be_sealed_says_why_in_one_line(kind: type[Mixer], reason: str) -> None:
    with pytest.raises(ExportError, match=f"^{reason}") as caught:
        sealed(made(kind))
    assert str(caught.value).isprintable()


def test_a_compiled_model_is_sealed_uncompiled() -> None:
    model = made(Attention)
    tokens = torch.randint(VOCABULARY, (5, LENGTH))
    expected = model(tokens)
    assert torch.equal(opened(torch.compile(model, backend="eager"))(tokens), expected)
    model.compile(backend="eager")
    assert torch.equal(opened(model)(tokens), expected)


@pytest.mark.parametrize("everywhere", [True, False], ids=["all of it", "a part without it"])
def test_ambient_autocast_is_sealed_too(*, everywhere: bool) -> None:
    class Model(Mixer):
        def mix(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.inner(F.scaled_dot_product_attention(x, x, x, is_causal=True))
            with torch.autocast("cpu", enabled=everywhere):
                return self.inner(x.float()) + y

    model = made(Model)
    tokens = torch.randint(VOCABULARY, (5, LENGTH))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = opened(model)
        expected = model(tokens)
    logits = found(tokens)
    assert logits.dtype == expected.dtype == torch.bfloat16
    assert torch.equal(logits, expected)
    assert found.coarse
    assert opened(model).coarse == everywhere  # for all of it has an autocast of its own


def test_ambient_autocast_is_sealed_with_a_model_that_knows_nothing_of_it() -> None:
    model = made(Attention)
    tokens = torch.randint(VOCABULARY, (5, LENGTH))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = opened(model)
        expected = model(tokens)
    assert expected.dtype == torch.bfloat16
    assert torch.equal(found(tokens), expected)


def test_a_mere_function_can_be_sealed() -> None:
    def undecided(tokens: torch.Tensor) -> torch.Tensor:
        return torch.full((*tokens.shape, VOCABULARY), 3.0)

    assert torch.equal(opened(undecided)(TOKENS), undecided(TOKENS))


def test_a_method_of_a_module_has_the_weights_of_the_module() -> None:
    model = made(Attention)
    assert seal(model.forward, TOKENS).weights.keys() == seal(model, TOKENS).weights.keys()
    assert torch.equal(opened(model.forward)(TOKENS), model(TOKENS))


def test_a_function_around_a_module_has_its_weights_for_constants() -> None:
    model = made(Attention)

    def twice(tokens: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = 2 * model(tokens)
        return found

    assert torch.equal(opened(twice)(TOKENS), twice(TOKENS))


def test_any_batch_size_will_do() -> None:
    model = made(RaggedExperts)
    found = opened(model)
    for rows in (1, 2, 7, 40):
        tokens = torch.randint(VOCABULARY, (rows, LENGTH))
        torch.testing.assert_close(found(tokens), model(tokens))


def test_tied_weights_are_stored_once() -> None:
    _, weights = taken_apart(sealed(made(TiedAndViewed))[0])
    assert sorted(weight.shape for weight in weights.values()) == [
        (3, WIDTH),
        (VOCABULARY,),
        (VOCABULARY, WIDTH),
    ]


def test_what_the_logits_do_not_need_is_left_out() -> None:
    class Wasteful(Mixer):
        def mix(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
            torch._assert(x.shape[0] > 1, "rows")
            self.inner(x).sort()
            return x

    graph, weights = taken_apart(sealed(made(Wasteful))[0])
    assert [node[0] for node in graph if node[0] not in {"weight", "tokens"}] == [
        "aten.embedding.default",
        "aten.linear.default",
    ]
    assert len(weights) == 3


def test_a_digest_tells_values_shapes_and_types() -> None:
    found = [
        digest(weight)
        for weight in (
            torch.zeros(3),
            torch.zeros(1, 3),
            torch.zeros(3, dtype=torch.int32),
            torch.tensor([0.0, 1e-30, 0.0]),
        )
    ]
    assert len(set(found)) == len(found)


def test_the_digest_of_a_model_stands_for_its_weights_and_its_graph() -> None:
    model = made(Attention)
    before = seal(model, TOKENS).digest
    assert seal(model, TOKENS).digest == before
    with torch.no_grad():
        model.head.weight[0, 0] += 1e-6
    after = seal(model, TOKENS).digest
    assert after != before
    assert seal(lambda tokens: 2 * model(tokens), TOKENS).digest not in {before, after}


@pytest.mark.parametrize("kind", SEALABLE.values(), ids=SEALABLE.keys())
def test_a_model_is_traced_before_it_is_trained_and_sealed_with_its_last_weights(kind: type[Mixer]) -> None:
    model = made(kind)
    trace = Trace(model, TOKENS)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.01)
    assert trace.seal(model).digest == seal(model, TOKENS).digest
    other = made(kind)  # an average of weights, say
    assert trace.seal(other).digest == seal(other, TOKENS).digest


def test_a_weight_that_is_no_plain_tensor_is_named() -> None:
    model = made(Attention)
    trace = Trace(model, TOKENS)
    model.head.weight = nn.Parameter(model.head.weight.to("meta"))
    with pytest.raises(ExportError, match="no plain tensor"):
        trace.seal(model)


def test_the_model_is_left_as_it_was() -> None:
    model = made(Attention).train()
    model.inner.eval()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    sealed(model)
    assert model.training
    assert not model.inner.training
    assert all(weight.requires_grad for weight in model.parameters())
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_nothing_is_said_while_sealing() -> None:
    code = """
from tests.sealed_models import SEALABLE, UNSEALABLE, sealed
sealed(SEALABLE["RaggedExperts"]().eval())
for kind in "Branching", "ThroughNumpy":
    try:
        sealed(UNSEALABLE[kind][0]().eval())
    except Exception as error:  # noqa: BLE001 - whatever it is, both must end with it
        print(error)
"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stderr == ""
    assert [line.partition(":")[0] for line in ended.stdout.splitlines()] == [
        "the forward pass branches on data",
        "the forward pass leaves torch for numpy",
    ]


def test_only_the_author_s_own_lines_are_named() -> None:
    names: dict[str, Any] = {"torch": torch}
    exec("def model(tokens): return torch.rand(*tokens.shape, 61)", names)  # noqa: S102 - code without a file
    with pytest.raises(ExportError, match=r"^aten\.rand is random: leave it out in eval mode$"):
        sealed(names["model"])


def test_an_error_of_the_model_itself_is_told_in_one_line() -> None:
    class Wrong(Mixer):
        def mix(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
            return x @ x

    with pytest.raises(ExportError, match=r"^torch\.export cannot follow the forward pass: \w+: .*16"):
        seal(made(Wrong), TOKENS)


def test_every_operator_of_the_list_is_pure() -> None:
    for name in operators.ATEN:
        function: Any = operators.operator_named(name)
        schema = function._schema
        assert not schema.is_mutable, name
        assert not any(argument.is_out for argument in schema.arguments), name
        assert not any("Generator" in str(argument.real_type) for argument in schema.arguments), name
        random = torch.Tag.nondeterministic_seeded in function.tags
        assert random == (name == "aten.scaled_dot_product_attention.default"), name  # which has a rule
        impure = ("empty", "resize", "as_strided", "unsafe", "backward", "dense", "from_file")
        assert not any(word in name for word in impure), name


def test_installing_the_plugin_imports_no_torch() -> None:
    code = (
        "import sys, pytest_autoresearch.plugin.hooks; assert not {'torch', 'safetensors'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
