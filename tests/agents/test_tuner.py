"""The tuner proposes new values for the constants of a script."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from pytest_autoresearch.agents.briefing import Briefing
from pytest_autoresearch.agents.tuner.agent import Tuner
from pytest_autoresearch.agents.tuner.search import Search
from pytest_autoresearch.records.measurement import Measurement
from pytest_autoresearch.records.proposal import Proposal
from pytest_autoresearch.records.trial import Trial, Value, Verdict
from pytest_autoresearch.source import constants, validation

SCRIPT = """\
\"\"\"A GPT in one file, cut down to its constants — ä, é.\"\"\"

import torch
from prepare import MAX_SEQ_LEN, TIME_BUDGET, evaluate_bpb, per_device

DEPTH = per_device(cuda=8, cpu=4)  # layers
ASPECT_RATIO = 64  # width = DEPTH * ASPECT_RATIO
HEAD_DIM = per_device(cuda=128, cpu=32)
WINDOW_PATTERN = per_device(cuda="SSSL", cpu="L")  # S = half context, L = full

TOTAL_BATCH_SIZE = per_device(cuda=2**19, cpu=2**12)  # tokens per optimizer step
DEVICE_BATCH_SIZE = per_device(cuda=128, cpu=16)  # rows per forward pass
EMBEDDING_LR = 0.6
UNEMBEDDING_LR = 0.004
MATRIX_LR = 0.04  # Muon
SCALAR_LR = 0.5
WEIGHT_DECAY = 0.2
ADAM_BETAS = (0.8, 0.95)
WARMUP_RATIO = 0.0  # of the time budget
WARMDOWN_RATIO = 0.5
FINAL_LR_FRAC = 0.0
SOFTCAP = 15.0
SEED = 42

rows = min(DEVICE_BATCH_SIZE, TOTAL_BATCH_SIZE // MAX_SEQ_LEN)
assert rows > 0
assert TOTAL_BATCH_SIZE % (rows * MAX_SEQ_LEN) == 0, "whole batches only"
model_dim = DEPTH * ASPECT_RATIO
assert model_dim % HEAD_DIM == 0
"""
FIXED = """\
def per_device(*, cuda, cpu):
    return cuda if torch.cuda.is_available() else cpu
MAX_SEQ_LEN = per_device(cuda=2048, cpu=256)
"""
SIZES = ["DEPTH", "ASPECT_RATIO", "HEAD_DIM", "TOTAL_BATCH_SIZE", "DEVICE_BATCH_SIZE"]
RATES = ["EMBEDDING_LR", "UNEMBEDDING_LR", "MATRIX_LR", "SCALAR_LR", "WEIGHT_DECAY"]
SHARES = ["WARMUP_RATIO", "WARMDOWN_RATIO", "FINAL_LR_FRAC"]
TUNED = [*SIZES, *RATES, "ADAM_BETAS[0]", "ADAM_BETAS[1]", *SHARES, "SOFTCAP"]

Device = Literal["cuda", "cpu"]
Objective = Callable[[Mapping[str, Value]], float | None]
Agent = Callable[[Briefing], Proposal | None]

propose = Tuner().propose


def brief(
    script: str = SCRIPT,
    history: Sequence[Trial] = (),
    *,
    start: str = "",
    device: Device = "cpu",
    number: int = 0,
    tag: str = "test",
    direction: Literal["minimize", "maximize"] = "minimize",
) -> Briefing:
    return Briefing(
        tag=tag,
        number=number or len(history) + 1,
        program="",
        fixed=FIXED,
        files={"train.py": script},
        start_files={"train.py": start or script},
        script_name="train.py",
        history=history,
        score=2.0,
        noise=0.001,
        metric="val_bpb",
        direction=direction,
        platform={"device": device},
    )


def entry(
    number: int, known: Mapping[str, Value], score: float | None = 2.0, verdict: Verdict = "discarded"
) -> Trial:
    measurements = () if score is None else (Measurement(score, seed=0, wall_seconds=1.0),)
    return Trial(number, "", verdict, "", "", "", 2.0, measurements, known)


@dataclasses.dataclass
class Campaign:
    """What a loop without git and noise-aware judging makes of an agent."""

    script: str
    best: float
    history: list[Trial]
    proposals: list[Proposal]
    incumbents: list[str]


def campaign(
    objective: Objective,
    trials: int,
    *,
    agent: Agent = propose,
    device: Device = "cpu",
    script: str = SCRIPT,
    tag: str = "test",
    direction: Literal["minimize", "maximize"] = "minimize",
    failure: Verdict = "crashed",
) -> Campaign:
    sign = 1 if direction == "minimize" else -1
    best = objective(constants.values(script, device))
    assert best is not None
    run = Campaign(script, best, [], [], [])
    for number in range(1, trials + 1):
        briefing = brief(run.script, run.history, start=script, device=device, tag=tag, direction=direction)
        proposal = agent(dataclasses.replace(briefing, number=number))
        if proposal is None:
            break
        known = constants.values(proposal.files["train.py"], device)
        score = objective(known)
        kept = score is not None and sign * score < sign * run.best
        verdict: Verdict = failure if score is None else "kept" if kept else "discarded"
        run.proposals.append(proposal)
        run.incumbents.append(run.script)
        run.history.append(
            dataclasses.replace(entry(number, known, score, verdict), incumbent_score=run.best)
        )
        if score is not None and kept:
            run.script, run.best = proposal.files["train.py"], score
    return run


def changed(before: str, after: str, device: Device) -> list[str]:
    old, new = constants.values(before, device), constants.values(after, device)
    assert list(old) == list(new)
    return [name for name in old if old[name] != new[name]]


def bowl(known: Mapping[str, Value], device: Device = "cpu", seed: int = 0) -> float:
    """Return a quadratic in the octaves of every constant, its optimum near the start and seeded."""
    start = constants.values(SCRIPT, device)
    rng, total = random.Random(seed), 1.0
    for name in TUNED:
        shift, weight = rng.gauss(0, 0.6), rng.lognormvariate(-3.0, 1.0)
        value, origin = (float(at[name]) for at in (known, start))
        if name in SHARES:
            distance = 2 * (value - origin)
        elif name.startswith("ADAM"):
            distance = math.log2((1 - value) / (1 - origin))
        else:
            distance = math.log2(value / origin)
        total += weight * (distance - shift) ** 2
    return total


@functools.cache
def forty(device: Device) -> Campaign:
    return campaign(functools.partial(bowl, device=device), 40, device=device)


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_forty_proposals_are_sound_and_change_a_few_constants(device: Device) -> None:
    run = forty(device)
    assert len(run.proposals) == 40
    for proposal, incumbent in zip(run.proposals, run.incumbents, strict=True):
        validation.check(proposal.files["train.py"], incumbent, device, FIXED)
        names = changed(incumbent, proposal.files["train.py"], device)
        assert 1 <= len(names) <= 3
        assert set(names) <= set(TUNED)
        assert [change.split()[0] for change in proposal.description.split(", ")] == names
    outcomes = [tuple(tried.constants.items()) for tried in run.history]
    assert len(set(outcomes)) == 40


@pytest.mark.parametrize(("device", "other"), [("cuda", "cpu"), ("cpu", "cuda")])
def test_only_the_column_of_the_device_is_edited(device: Device, other: Device) -> None:
    columns = ["DEPTH", "HEAD_DIM", "TOTAL_BATCH_SIZE", "DEVICE_BATCH_SIZE", "WINDOW_PATTERN"]
    start, end = (constants.values(source, other) for source in (SCRIPT, forty(device).script))
    assert [start[name] for name in columns] == [end[name] for name in columns]
    assert changed(SCRIPT, forty(device).script, device)


def test_every_integer_is_first_moved_one_step_down() -> None:
    run = campaign(lambda _: 3.0, len(SIZES))
    assert [proposal.description for proposal in run.proposals] == [
        "DEPTH 4 -> 2",
        "ASPECT_RATIO 64 -> 32",
        "HEAD_DIM 32 -> 16",
        "TOTAL_BATCH_SIZE 2**12 -> 2**11",
        "DEVICE_BATCH_SIZE 16 -> 8",
    ]


def test_what_is_being_measured_is_not_proposed_again() -> None:
    running = propose(brief())
    assert running is not None
    ahead = propose(dataclasses.replace(brief(number=2), running=(running,)))
    assert ahead is not None
    assert (running.description, ahead.description) == ("DEPTH 4 -> 2", "ASPECT_RATIO 64 -> 32")


def test_a_step_that_an_assert_forbids_is_taken_with_another() -> None:
    script = "TOTAL = 2**12\nOTHER = 16\nDEVICE = 2**12\nassert TOTAL % DEVICE == 0\n"
    proposal = propose(brief(script))
    assert proposal is not None
    assert proposal.description == "TOTAL 2**12 -> 2**11, DEVICE 2**12 -> 2**11"


def test_a_step_down_that_was_kept_is_taken_once_more() -> None:
    def smaller_batches(known: Mapping[str, Value]) -> float:
        return float(known["TOTAL_BATCH_SIZE"]) / 2**12

    run = campaign(smaller_batches, 8)
    descriptions = [proposal.description for proposal in run.proposals]
    first = descriptions.index("TOTAL_BATCH_SIZE 2**12 -> 2**11")
    assert descriptions[first + 1] == "TOTAL_BATCH_SIZE 2**11 -> 2**10"
    # At the lowest of its range it ends; so it does where the next step is not kept.
    assert not descriptions[first + 2].startswith("TOTAL_BATCH_SIZE")


def test_screening_starts_from_the_incumbent_and_minds_other_agents() -> None:
    start = constants.values(SCRIPT, "cpu")
    history = [entry(1, start | {"DEPTH": 5}), entry(2, start | {"ASPECT_RATIO": 128})]
    incumbent = constants.replace(SCRIPT, {"DEPTH": "3", "HEAD_DIM": "64"}, "cpu")
    proposal = propose(brief(incumbent, history, start=SCRIPT))
    assert proposal is not None
    assert proposal.description == "HEAD_DIM 64 -> 32"


def test_a_forbidden_step_is_skipped() -> None:
    script = SCRIPT + "assert DEPTH == per_device(cuda=8, cpu=4)\n"
    run = campaign(lambda _: 3.0, 20, script=script)
    assert run.proposals[0].description == "ASPECT_RATIO 64 -> 32"
    assert len(run.proposals) == 20
    assert all("DEPTH" not in proposal.description for proposal in run.proposals)


def test_the_same_history_gives_the_same_proposal() -> None:
    history = forty("cpu").history
    for count in (0, 7, 20, 39):
        again = propose(brief(forty("cpu").incumbents[count], history[:count], start=SCRIPT))
        assert again == forty("cpu").proposals[count]
    briefing = brief(forty("cpu").incumbents[30], history[:30], start=SCRIPT)
    others = {propose(dataclasses.replace(briefing, tag=tag)).description for tag in ("a", "b", "c")}
    assert len(others) > 1, "another campaign goes another way"


def test_another_process_proposes_the_same() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_tuner as t;"
        "print([p.description for p in t.campaign(t.bowl, 19).proposals][-4:])"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code, str(Path(__file__).parent)],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert outputs == {f"{[proposal.description for proposal in forty('cpu').proposals[15:19]]}\n"}


def test_crashes_are_not_repeated_and_become_rare() -> None:
    def narrow(known: Mapping[str, Value]) -> float | None:
        return None if float(known["MATRIX_LR"]) > 0.04 else 2.0 + float(known["MATRIX_LR"])

    script = "MATRIX_LR = 0.04\nOTHER_LR = 0.04\n"
    run = campaign(narrow, 60, script=script)
    crashed = [tried.verdict == "crashed" for tried in run.history]
    assert sum(crashed[30:]) <= 3
    assert len({tuple(tried.constants.items()) for tried in run.history}) == 60


def test_what_runs_out_of_memory_becomes_rare() -> None:
    def small(known: Mapping[str, Value]) -> float | None:
        size = float(known["DEPTH"]) * float(known["WIDTH"]) * float(known["ROWS"])
        return None if size > 8 * 512 * 32 * 1.5 else 3.0 - math.log2(size) / 10

    script = "DEPTH = 8\nWIDTH = 512\nROWS = 32\nMATRIX_LR = 0.04\nSOFTCAP = 15.0\n"
    run = campaign(small, 60, script=script, failure="out of memory")
    failed = [tried.verdict == "out of memory" for tried in run.history]
    assert sum(failed) <= 15
    assert run.best < 3.0 - math.log2(8 * 512 * 32 * 1.2) / 10, "though larger is better"


def test_every_verdict_is_told() -> None:
    start = constants.values(SCRIPT, "cpu")
    rng = random.Random(0)
    verdicts: list[Verdict] = ["kept", "discarded", "crashed", "out of memory", "timeout", "refused"]
    history = [
        entry(number, {name: varied(name, value, rng) for name, value in start.items()}, 2.0, verdict)
        for number, verdict in enumerate(verdicts * 5, start=1)
    ]
    history.append(entry(31, {}, None, "refused"))
    history.append(entry(32, {"DEPTH": "a word", "SOFTCAP": -1.0, "ADAM_BETAS[0]": True}, 1.0))
    assert propose(brief(history=history)) is not None


def varied(name: str, value: Value, rng: random.Random) -> Value:
    if isinstance(value, str) or name == "SEED":
        return value
    return value * 2 if isinstance(value, int) else round(max(value, 0.1) * rng.uniform(0.5, 1.02), 4)


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_it_beats_chance(direction: Literal["minimize", "maximize"]) -> None:
    sign = 1 if direction == "minimize" else -1
    gains: dict[str, float] = {}
    for name, agent in (("tuner", propose), ("chance", chance)):
        gains[name] = 0
        for seed in range(3):
            noise = random.Random(seed)
            landscape = functools.partial(bowl, seed=seed)

            def noisy(
                known: Mapping[str, Value],
                landscape: Objective = landscape,
                noise: random.Random = noise,
            ) -> float:
                return sign * ((landscape(known) or 0) + noise.gauss(0, 0.002))

            run = campaign(noisy, 50, agent=agent, tag=f"seed {seed}", direction=direction)
            left = landscape(constants.values(run.script, "cpu")) - 1
            gains[name] += 1 - left / (landscape(constants.values(SCRIPT, "cpu")) - 1)
    assert gains["tuner"] / 3 > 0.5, "of what there is to gain"
    assert gains["chance"] / 3 < 0.25


def chance(briefing: Briefing) -> Proposal | None:
    """Propose every constant anew, by chance in the tuner's own ranges."""
    rng = random.Random(f"{briefing.tag} {briefing.number}")
    known = constants.values(briefing.start, "cpu")
    while True:
        texts = {name: drawn(name, float(known[name]), rng) for name in TUNED}
        source = constants.replace(briefing.script, texts, "cpu")
        if constants.broken_assert(source, "cpu", FIXED) is None:
            return Proposal({"train.py": source}, "")


def drawn(name: str, origin: float, rng: random.Random) -> str:
    if name in SHARES:
        return repr(round(rng.random(), 3))
    if name.startswith("ADAM"):
        return repr(round(1 - min(1, (1 - origin) * 4 ** rng.uniform(-1, 1)), 4))
    if name == "DEPTH":
        return repr(rng.randint(2, 8))
    if name in SIZES:
        return repr(int(origin * 2.0 ** rng.randint(-2, 2)))
    return repr(round(origin * 4 ** rng.uniform(-1, 1), 5))


def reached(script: str, name: str, count: int = 60) -> set[Value]:
    return {tried.constants[name] for tried in campaign(lambda _: 3.0, count, script=script).history}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("USE_BIAS = False", {True}),
        ("DEPTH = 3", {1, 2, 4, 5, 6}),
        ("WIDTH = 64", {16, 32, 128, 256}),
        ("WIDTH = 1", {2}),
        ('WINDOW = "L"  # tune: "L" | "SL" | "SSSL"', {"SL", "SSSL"}),
        ("WINDOW = 'L'  # what it sees; tune: 'SL'|'S'", {"SL", "S"}),
        ("WIDTH = 64  # tune: 48 | 96", {48, 96}),
        ("WIDTH = 64  # tune: 62..65", {62, 63, 65}),
        ("WIDTH = 64  # tune: 2**5..2**7, no more fits", {32, 128}),
        ("SEED = 3  # tune: 2..4", {2, 4}),
        ("WIDTH = 64  # tune: fixed, it is what it is", set()),
        ("SEED = 42", set()),
        ("EVAL_TOKENS = 65536", set()),
        ("COMPILE = False", set()),
        ("COEFFICIENTS = ((4.0, 2.0), (3.0, 1.0))", set()),
        ("TIME_BUDGET = 30", set()),
        ('DATA_PATH = "x"', set()),
        ("VOCAB_SIZE = 2048", set()),
        ("H100_BF16_PEAK_FLOPS = 989.5e12", set()),
        ("OFFSET = -3", set()),
        ("Z_LOSS = 0.0", set()),
        ("HUGE = 1e308", set()),
        ("MASK = 2**61 - 1", set()),
        ("WIDTH = 64  # tune: 1.2..1.8", set()),
        ("lower = 3", set()),
        ("", set()),
    ],
)
def test_a_small_space_is_exhausted(line: str, expected: set[Value]) -> None:
    name = line.partition(" ")[0]
    run = campaign(lambda _: 3.0, 10, script=line + "\n")
    assert {tried.constants[name] for tried in run.history} == expected
    assert len(run.history) == len(expected)


@pytest.mark.parametrize(
    ("line", "low", "high"),
    [
        ("MATRIX_LR = 0.04", 0.01, 0.16),
        ("MATRIX_LR = 0.04  # tune: 1e-3..1e-1", 0.001, 0.1),
        ("WARMUP_RATIO = 0.0", 0, 1),
        ("DROPOUT = 0.1  # tune: 0.05..0.2", 0.05, 0.2),
        ("ADAM_BETA2 = 0.95", 0.8, 0.9875),
        ("MOMENTUM = 0.9  # tune: 0.85..0.99", 0.85, 0.99),
        ("SHIFT = -1.5  # tune: -2..2", -2, 2),
        ("WIDTH = 768  # how to tune: carefully", 384, 1536),
    ],
)
def test_ranges(line: str, low: float, high: float) -> None:
    values = reached(line + "\n", line.partition(" ")[0], 40)
    assert len(values) == 40
    assert all(low <= float(value) <= high for value in values)
    assert max(map(float, values)) - min(map(float, values)) > (high - low) / 3


@pytest.mark.parametrize(
    ("line", "first"),
    [
        ("WIDTH = 2**10", "WIDTH 2**10 -> 2**9"),
        ("WIDTH = 1024", "WIDTH 1024 -> 512"),
        ("WIDTH = 3 * 5", "WIDTH 3 * 5 -> 8"),
        ("WIDTH = per_device(\n    cuda=4,\n    cpu=(2\n    **10),\n)", "WIDTH 2 **10 -> 2**9"),
        ('W = "a\'"  # tune: "a\'" | "b\'"', 'W "a\'" -> "b\'"'),
        ('W = \'a\'  # tune: "a" | "b"', "W 'a' -> 'b'"),
    ],
)
def test_the_style_of_the_script_is_kept(line: str, first: str) -> None:
    proposal = propose(brief(line + "\n"))
    assert proposal is not None
    assert proposal.description == first


def test_floats_have_three_significant_digits() -> None:
    for value in reached("MATRIX_LR = 0.04\n", "MATRIX_LR", 20):
        assert value == float(f"{value:.3g}")
    for value in reached("BETA = 0.999\n", "BETA", 20):
        assert 1 - float(value) == pytest.approx(float(f"{1 - float(value):.3g}"), rel=1e-6)


@pytest.mark.parametrize(
    "texts",
    [
        {"DEPTH": "100", "HEAD_DIM": "1", "MATRIX_LR": "7.0", "WARMUP_RATIO": "-2.0", "ADAM_BETAS[0]": "1.5"},
        {"DEPTH": "4.0", "HEAD_DIM": "48", "TOTAL_BATCH_SIZE": "2**12 * 3", "SOFTCAP": "0"},
        {"DEPTH": "'deep'", "HEAD_DIM": "True", "SOFTCAP": "'none'"},
    ],
)
def test_an_incumbent_outside_the_ranges_is_coped_with(texts: dict[str, str]) -> None:
    script = SCRIPT.partition("rows =")[0]
    incumbent = constants.replace(script, texts, "cpu")
    history = [entry(1, constants.values(incumbent, "cpu"), verdict="kept")]
    for number in range(2, 40):
        proposal = propose(brief(incumbent, history, start=script))
        assert proposal is not None
        known = constants.values(proposal.files["train.py"], "cpu")
        assert set(known) == set(constants.values(script, "cpu"))
        history.append(entry(number, known))


def test_an_integer_that_another_agent_moved_beside_a_rate_is_still_moved_alone() -> None:
    start = constants.values(SCRIPT, "cpu")
    beside = entry(1, start | {"DEPTH": start["DEPTH"] + 1, "MATRIX_LR": 0.01})
    alone = entry(1, start | {"DEPTH": start["DEPTH"] + 1})
    moved = [first(brief(history=[tried])) for tried in (beside, alone)]
    assert moved == ["DEPTH", "ASPECT_RATIO"]


def first(briefing: Briefing) -> str:
    proposal = propose(briefing)
    assert proposal is not None
    return proposal.description.split()[0]


def test_what_another_agent_changed_together_is_taken_up_in_parts() -> None:
    start = constants.values(SCRIPT, "cpu")
    ideas: dict[str, Value] = {"MATRIX_LR": 0.0123, "SCALAR_LR": 0.345, "SOFTCAP": 21.7}
    steps = [entry(number, start | {name: 1 + number}) for number, name in enumerate(SIZES, start=1)]
    last = entry(6, start | ideas)
    share = [
        _taken(ideas, [*steps, dataclasses.replace(last, agent=name)]) for name in ("tuner", "", "model")
    ]
    assert share[0] == share[1] == 0
    assert 0.1 < share[2] < 0.25, "one trial of six was the other agent's"


def _taken(ideas: dict[str, Value], history: list[Trial]) -> float:
    """Return in how many of the draws every change is one of the *ideas*."""
    search = Search(brief(history=history))
    rng = np.random.default_rng(0)
    draws = [search._draw(rng) for _ in range(1000)]
    return sum(draw.items() <= ideas.items() for draw in draws) / len(draws)


def test_constants_that_came_or_went_are_left_alone() -> None:
    incumbent = SCRIPT.replace("SOFTCAP = 15.0", "HARDCAP = 15.0").replace(
        "SCALAR_LR = 0.5", "SCALAR_LR = f()"
    )
    history: list[Trial] = []
    for number in range(1, 25):
        proposal = propose(brief(incumbent, history, start=SCRIPT))
        assert proposal is not None
        assert "CAP" not in proposal.description
        assert "SCALAR_LR" not in proposal.description
        history.append(entry(number, constants.values(proposal.files["train.py"], "cpu")))


@pytest.mark.parametrize(("count", "seconds"), [(288, 3), (10_000, 9)])  # machines are slow at times
def test_long_histories_are_learned_in_time(count: int, seconds: float) -> None:
    start = constants.values(SCRIPT, "cpu")
    rng = random.Random(0)
    history = [
        entry(
            number,
            start | {name: varied(name, start[name], rng) for name in rng.sample(TUNED, 3)},
            rng.random(),
        )
        for number in range(1, count + 1)
    ]
    propose(brief())  # so that the import of numpy is not counted
    began = time.process_time()
    assert propose(brief(history=history)) is not None
    assert time.process_time() - began < seconds


def test_numpy_is_imported_late() -> None:
    code = (
        "import sys, pytest_autoresearch.agents.tuner.agent; assert 'numpy' not in sys.modules;"
        "import pytest_autoresearch.source.validation; assert 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_it_says_nothing(capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder) -> None:
    for history in ([], forty("cpu").history):
        propose(brief(history=history))
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list
