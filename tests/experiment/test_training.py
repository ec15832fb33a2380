"""train.py run for real: what it prints, that it learns, and how it fails."""

import math
import re
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from tests.experiment_files import EXPERIMENT, cache, prepare, run

__all__ = ["cache", "prepare"]  # fixtures

SUMMARY = [
    *("val_bpb", "training_seconds", "total_seconds", "peak_vram_mb"),
    *("total_tokens_M", "num_steps", "num_params_M", "depth"),
]
SMALL = {"DEPTH": "2", "TOTAL_BATCH_SIZE": "2**9", "DEVICE_BATCH_SIZE": "2"}  # a step is soon done


def changed(folder: Path, constants: dict[str, str]) -> Path:
    """A copy of the script with other values for some of its constants."""
    source = (EXPERIMENT / "train.py").read_text()
    for name, value in constants.items():
        source, count = re.subn(rf"^{name} = .*$", f"{name} = {value}", source, flags=re.MULTILINE)
        assert count == 1
    shutil.copy(EXPERIMENT / "prepare.py", folder)
    (folder / "train.py").write_text(source)
    return folder / "train.py"


def summary(stdout: str) -> dict[str, float]:
    lines = stdout.partition("---\n")[2].splitlines()
    return {name: float(value) for name, value in (line.split(":") for line in lines)}


@pytest.mark.slow
@pytest.mark.usefixtures("prepare")
def test_it_learns_within_its_budget_and_says_how_it_went(tmp_path: Path, cache: Path) -> None:
    script = changed(tmp_path, SMALL)
    result = run(script, cache=cache, AUTORESEARCH_TIME_BUDGET="2")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    figures = summary(result.stdout)
    assert list(figures) == SUMMARY
    assert (
        0.5 < figures["val_bpb"] < 3.4
    )  # untrained, each target costs log2 of the vocabulary: more than 3.5
    assert 1.5 <= figures["training_seconds"] <= 2.2  # it stops before the step that would not end in time
    assert figures["total_tokens_M"] == round(figures["num_steps"] * 2**9 / 1e6, 3)
    assert 100 < figures["peak_vram_mb"] < 4000
    line = r"step \d{5} \(\d+\.\d%\) \| loss: \d+\.\d{6} \| lrm: \d\.\d\d \| dt: \d+ms"
    line += r" \| tok/sec: [\d,]+ \| epoch: 1 \| remaining: \d+s *"
    progress = [text for text in result.stdout.splitlines() if text.startswith("step")]
    assert 2 <= len(progress) <= 10 * figures["total_seconds"] + 2  # ten a second of wall time at most
    assert all(re.fullmatch(line, text) for text in progress)


SHAPES = [
    {"WINDOW_PATTERN": '"SL"', "DEPTH": "3", "SOFTCAP": "0"},
    # Of width 16, less than the gate's.
    {"ASPECT_RATIO": "9", "HEAD_DIM": "8", "DEPTH": "1", "WARMUP_RATIO": "0.5"},
    {"TOTAL_BATCH_SIZE": "2**8"},  # fewer rows than DEVICE_BATCH_SIZE allows
    {"DTYPE": '"bfloat16"', "DEVICE_BATCH_SIZE": "1", "WARMDOWN_RATIO": "0.0"},  # two micro-steps
]
RUN_EACH = """
import os, runpy, sys
import torch, prepare
prepare.EVAL_TOKENS = 4 * prepare.MAX_SEQ_LEN
for script in sys.argv[1:]:
    if os.fork() == 0:
        runpy.run_path(script, run_name="__main__")
        raise SystemExit
    os.wait()
"""


@pytest.mark.slow
@pytest.mark.usefixtures("prepare")
def test_other_shapes_run_too(tmp_path: Path, cache: Path) -> None:
    scripts = []
    for number, constants in enumerate(SHAPES):
        (tmp_path / str(number)).mkdir()
        scripts.append(changed(tmp_path / str(number), SMALL | constants))
    result = run("-c", RUN_EACH, *scripts, cache=cache, AUTORESEARCH_TIME_BUDGET="0.2")
    assert result.stderr == ""
    scores = re.findall(r"^val_bpb: +(\S+)$", result.stdout, re.MULTILINE)
    assert [math.isfinite(float(score)) for score in scores] == [True] * len(SHAPES)


@pytest.mark.slow
@pytest.mark.usefixtures("prepare")
def test_an_exploding_loss_ends_the_run(tmp_path: Path, cache: Path) -> None:
    script = changed(tmp_path, SMALL | {"UNEMBEDDING_LR": "1e30", "EMBEDDING_LR": "1e30", "SOFTCAP": "0"})
    result = run(script, cache=cache)
    assert result.returncode == 1
    assert re.fullmatch(r"FAIL: the loss is \S+ at step \d+", result.stdout.splitlines()[-1])
    assert "Traceback" not in result.stderr


def test_impossible_constants_are_refused_at_once(tmp_path: Path, cache: Path) -> None:
    impossible = [("TOTAL_BATCH_SIZE", 1000), ("DEVICE_BATCH_SIZE", 3), ("HEAD_DIM", 7), ("DEPTH", 0)]
    for name, value in impossible:
        script = changed(tmp_path, {name: str(value)}).rename(tmp_path / f"{name}.py")
        script.write_text(
            script.read_text().replace("began = ", "raise SystemExit('refused too late')\nbegan = ")
        )
    refused = """
import runpy, sys
for name in sys.argv[1:]:
    try:
        runpy.run_path(name)
    except AssertionError:
        print("refused")
"""
    result = run("-c", refused, *(tmp_path / f"{name}.py" for name, _ in impossible), cache=cache)
    assert result.stdout.split() == ["refused"] * len(impossible), result.stderr


# Each behaviour with its code, which runs beside the model that MODEL makes.
BESIDE = {
    "warming up leaves no trace on the model": """
weights = [p.detach().clone() for p in model.parameters()]
warm_up()
assert all(map(torch.equal, weights, model.parameters()))
assert all(p.grad is None for p in model.parameters())
assert not adamw.state and not muon.state
""",
    "the model looks only backwards": """
for p in model.parameters():
    torch.nn.init.normal_(p, std=0.3)
tokens = torch.arange(MAX_SEQ_LEN)[None]
other = tokens.clone()
other[0, 200:] = 7
with torch.no_grad():
    assert torch.allclose(model(tokens)[0, :200], model(other)[0, :200], atol=1e-5)
    assert not torch.allclose(model(tokens)[0, 200:], model(other)[0, 200:], atol=1e-1)
exported = torch.export.export(model, (tokens,)).module()
assert torch.allclose(exported(tokens), model(tokens), atol=1e-4)
""",
    "the numerics are the textbook's": """
q, k, v = (torch.randn(2, 16, 3, 8) for _ in range(3))
back = torch.arange(16)[:, None] - torch.arange(16)
for window in (1, 7, 15, 99):
    scores = torch.einsum("bqhc,bkhc->bhqk", q, k) / 8**0.5
    scores = scores.masked_fill((back < 0) | (back > window), -math.inf)
    expected = torch.einsum("bhqk,bkhc->bqhc", scores.softmax(-1), v)
    assert torch.allclose(attend(q, k, v, window), expected, atol=1e-5)

for shape in ((4, 48, 16), (4, 16, 48)):
    values = torch.linalg.svdvals(orthogonalize(torch.randn(shape)))
    assert 0.7 < values.min() and values.max() < 1.2

WARMUP_RATIO, WARMDOWN_RATIO, FINAL_LR_FRAC = 0.2, 0.5, 0.1
points = (0.0, 0.1, 0.2, 0.5, 0.75, 1.0)
assert [round(lr_multiplier(point), 9) for point in points] == [0.0, 0.5, 1.0, 1.0, 0.55, 0.1]

def gradient(rows, steps):
    global MICRO_STEPS
    MICRO_STEPS = steps
    model.zero_grad()
    kept = []
    for optimizer in (adamw, muon):
        optimizer.step = lambda: kept or kept.append(model.head.weight.grad.clone())
    batch, *others = [(part, part, 0) for part in rows]
    train_step(batch, iter([*others, None]), 1.0, 0.9, 0.0)
    return kept[0]

tokens = torch.arange(4 * 32).view(4, 32)
assert torch.allclose(gradient([tokens], 1), gradient([tokens[:2], tokens[2:]], 2), atol=1e-6)
""",
    # As on a small GPU: what a run may train beyond a budget of 300 s is less than such a step.
    "no run of slow steps takes longer than it may": """
import random
def clock():
    return now
def train_step(batch, batches, *_):
    global now
    now += random.gauss(8.5, 0.1)
    return torch.ones(()), next(batches)
make_dataloader = lambda *_: iter(lambda: (None, None, 1), None)
TIME_BUDGET = 300
for _ in range(100):
    now = 0.0
    seconds, steps = train()
    assert 300 - 2 * 8.5 < seconds < 300 + 1.5 and steps >= 33, (seconds, steps)
""",
    # The first one once the clock runs, each in its turn, and none left out.
    "a batch is packed while the one before is worked on": """
events = []
def loader(*_):
    for number in range(100):
        events.append(f"pack {number}")
        yield torch.full((BATCH_ROWS, 8), number), torch.zeros(BATCH_ROWS, 8, dtype=torch.int64), 1
def clock():
    events.append("clock")
    return float(events.count("clock"))
def step():
    events.append("update")
def compiled(inputs, targets):
    assert targets.shape == inputs.shape
    events.append(f"forward {inputs[0, 0]}")
    loss = model.head.weight.sum()
    loss.register_hook(lambda _: events.append("backward"))
    return loss
make_dataloader, adamw.step, muon.step, MAX_LOSS, TIME_BUDGET = loader, step, lambda: None, math.inf, 2.5
train()
one, two, three, four = (["forward %d" % n, "backward", "pack %d" % (n + 1)] for n in range(4))
assert events == ["clock", "pack 0", *one, *two, "update", "clock", *three, *four, "update", "clock"], events
""",
    # Not run on a GPU: the weights are on a device without data.
    "rates are not sent to the device of the weights": """
weights = [torch.nn.Parameter(torch.zeros(8, 4, device="meta")) for _ in range(2)]
for weight in weights:
    weight.grad = torch.zeros_like(weight)
muon = Muon(weights, 0.1, 0.2)
def update(stack, grads, velocity, variance, *rates):
    assert stack.is_meta and [rate.device.type for rate in rates] == ["cpu"] * 3, rates
    assert torch.allclose(torch.stack(rates), torch.tensor([0.1 * 2**0.5, MUON_MOMENTUM, 0.2]))
    return muon_update(stack, grads, velocity, variance, *rates)
muon.update = update
muon.step()
""",
    # Training takes the kernel of prepare.py, if there is one; not run on a GPU.
    "what is exported takes no kernel": """
called = []
def flash(q, k, v, causal, window_size):
    called.append((causal, window_size))
    return v
tokens = torch.arange(MAX_SEQ_LEN)[None]
with torch.no_grad():
    model(tokens)
half, whole = ((True, (MAX_SEQ_LEN // part, 0)) for part in (2, 1))
assert called == [half, half, whole, whole], called
exported = torch.export.export(model, (tokens,))
called_on = [str(node.target) for node in exported.graph.nodes if node.op == "call_function"]
kernels = [name for name in called_on if "attention" in name]
assert len(called) == 4 and kernels == ["aten.scaled_dot_product_attention.default"] * 4, kernels
""",
}
# Four layers, the first and the last of them with a short window; steps of two rows in two parts.
MODEL = SMALL | {"DEPTH": "4", "WINDOW_PATTERN": '"SSL"', "DEVICE_BATCH_SIZE": "1"}
EACH_IN_A_FORK = """
import os, traceback
for name, code in BESIDE.items():
    if os.fork() == 0:
        try:
            exec(code)
        except BaseException:
            print(name, flush=True)
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    print(name, os.wait()[1], flush=True)
"""


@pytest.fixture(scope="module")
def beside(
    tmp_path_factory: pytest.TempPathFactory, cache: Path, prepare: ModuleType
) -> subprocess.CompletedProcess[str]:
    """Return what all code of BESIDE has printed, run where the script is about to train."""
    assert prepare  # its data is ready
    folder = tmp_path_factory.mktemp("beside")
    before, marker, _ = changed(folder, MODEL).read_text().partition("warm_up()\nseconds")
    assert marker
    (folder / "beside.py").write_text(f"{before}BESIDE = {BESIDE!r}\n{EACH_IN_A_FORK}")
    return run(folder / "beside.py", cache=cache)


@pytest.mark.parametrize("behaviour", BESIDE)
def test_beside_the_model(beside: subprocess.CompletedProcess[str], behaviour: str) -> None:
    assert f"{behaviour} 0\n" in beside.stdout, beside.stderr


def test_the_batch_follows_the_memory_of_the_gpu(cache: Path) -> None:
    """Not run on a GPU: the constants are made as on cards of 8 to 140 GB, with bfloat16 and without."""
    constants, marker, _ = (EXPERIMENT / "train.py").read_text().partition("# Model\n")
    assert marker
    code = f"""
import prepare, torch
for bfloat16, gigabytes in [(True, 7.8), (True, 11.7), (True, 15.7), (True, 23.6), (True, 39.4), (True, 47.4),
                            (True, 79.2), (True, 139.8), (False, 10.6), (False, 31.7)]:
    prepare.gpu_memory_gb = lambda: gigabytes
    torch.cuda.is_bf16_supported = lambda including_emulation: bfloat16 or including_emulation
    names = {{}}
    exec({constants!r}, names)
    step = names["BATCH_ROWS"] * names["MICRO_STEPS"] * prepare.MAX_SEQ_LEN
    print(names["DTYPE"], names["DEVICE_BATCH_SIZE"], step == names["TOTAL_BATCH_SIZE"])
"""
    result = run("-c", code, cache=cache, AUTORESEARCH_DEVICE="cuda")
    assert result.returncode == 0, result.stderr
    rows = [16, 16, 32, 32, 64, 64, 128, 128]
    expected = [f"bfloat16 {count} True" for count in rows] + ["float32 8 True", "float32 32 True"]
    assert result.stdout.splitlines() == expected


@pytest.mark.slow
@pytest.mark.usefixtures("prepare")
def test_it_compiles_into_one_graph(tmp_path: Path, cache: Path) -> None:
    """What CUDA does by default, as far as a CPU can tell."""
    constants = SMALL | {"COMPILE": "False", "DTYPE": '"bfloat16"', "WINDOW_PATTERN": '"SSSL"'}
    code = """
tokens = torch.arange(2 * MAX_SEQ_LEN).view(2, MAX_SEQ_LEN) % 100
whole = torch.compile(model, backend="aot_eager", fullgraph=True)
assert torch.allclose(whole(tokens, tokens), model(tokens, tokens), atol=1e-2)
muon.update = torch.compile(muon_update, backend="aot_eager", fullgraph=True)
compiled = whole
warm_up()
"""
    before, _, _ = changed(tmp_path, constants).read_text().partition("warm_up()\nseconds")
    (tmp_path / "beside.py").write_text(before + code)
    result = run(tmp_path / "beside.py", cache=cache)
    assert result.returncode == 0, result.stderr
