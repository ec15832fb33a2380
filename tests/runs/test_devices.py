"""The device that the experiment runs on: which one, whose word counts, and what an Apple GPU cannot do.

Not run on a GPU: where one would be needed, a CPU shows which way is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pytest_autoresearch.runs.site import Site
from tests.experiment_files import EXPERIMENT, cache, prepare, run

__all__ = ["cache", "prepare"]  # fixtures

SCRIPT = EXPERIMENT / "prepare.py"


@pytest.mark.parametrize(
    ("usable", "found"),
    [({"cuda"}, "cuda"), ({"cuda", "mps"}, "cuda"), ({"mps"}, "mps"), (set(), "cpu")],
    ids=["cuda", "both", "mps", "neither"],
)
def test_the_best_device_is_found(
    prepare: ModuleType, monkeypatch: pytest.MonkeyPatch, usable: set[str], found: str
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: "cuda" in usable)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: "mps" in usable)
    assert prepare.found_device() == found


def test_who_is_told_its_device_asks_nobody(tmp_path: Path) -> None:
    """Asking may initialise CUDA, and the scorer's forks could then no longer use it."""
    code = """
import torch
def asked(*_): raise SystemExit("asked for devices")
torch._C._cuda_getDeviceCount = torch.cuda.is_available = torch.cuda.device_count = asked
torch.backends.mps.is_available = torch.cuda._lazy_init = asked
import prepare
print(prepare.DEVICE, prepare.MAX_SEQ_LEN, prepare.TIME_BUDGET, torch.cuda.is_initialized())
"""
    result = run("-c", code, cache=tmp_path, AUTORESEARCH_DEVICE="cuda")
    assert result.stdout == "cuda 2048 300 False\n", result.stderr


@pytest.mark.parametrize("device", ["cuda", "mps"])
@pytest.mark.parametrize("how", ["a run", "prepare.py"])
def test_a_device_that_cannot_be_had_is_an_error_of_one_line(tmp_path: Path, device: str, how: str) -> None:
    """In a run that is measured, and before anything is prepared; never on another device instead."""
    arguments = ["-c", "import prepare; print('goes on')"] if how == "a run" else [SCRIPT]
    told = {"AUTORESEARCH_CHANNEL": "3"} if how == "a run" else {}
    if device == "mps" and torch.backends.mps.is_available():
        pytest.skip("it can be had")
    result = run(*arguments, cache=tmp_path, AUTORESEARCH_DEVICE=device, **told)
    assert (result.returncode, result.stdout) == (1, "")
    [line] = result.stderr.splitlines()
    assert line.startswith(f"prepare.py: {device} cannot be used: ")
    assert device in line.partition("used: ")[2].lower()  # in torch's own words
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("prepare")
def test_why_there_is_no_gpu_is_said_once(cache: Path) -> None:
    _, _, summary = run(SCRIPT, cache=cache).stdout.partition("---\n")
    [line] = [line for line in summary.splitlines() if line.startswith("no_gpu: ")]
    assert "CUDA" in line or "driver" in line  # "Torch not compiled with CUDA enabled", where it is not


@pytest.mark.usefixtures("prepare")
def test_apple_s_gpus_take_the_cpu_s_sizes_and_wall_time(cache: Path) -> None:
    code = """
import torch
threads = torch.get_num_threads()
import prepare
assert torch.get_num_threads() == threads, "one thread is for the CPU's clock"
print(prepare.DEVICE, prepare.MAX_SEQ_LEN, prepare.TIME_BUDGET)
prepare.require_device = lambda: None  # describing needs no GPU, only to believe in one
prepare.main()
"""
    result = run("-c", code, cache=cache, AUTORESEARCH_DEVICE="mps")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[0] == "mps 256 30"
    assert "no_gpu" not in result.stdout
    values = dict(line.split(":", 1) for line in result.stdout.partition("---\n")[2].splitlines())
    assert [values[key].split()[0] for key in ("device", "clock", "data")] == ["mps", "wall", "sotu"]


class WithoutFloat64(TorchDispatchMode):
    """Tensors on `meta` are on a device without float64, as Apple's GPUs are; what is read there is 0."""

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        options = dict(kwargs or {})
        reads = func is torch.ops.aten._to_copy.default and options.get("device") == torch.device("cpu")
        if reads or func is torch.ops.aten._local_scalar_dense.default:
            args = tuple(torch.zeros_like(arg, device="cpu") for arg in args)
        result = func(*args, **options)
        if isinstance(result, torch.Tensor) and result.device.type == "meta":
            assert result.dtype != torch.float64, f"float64 on the device: {func}"
        return result


def test_nothing_in_float64_is_put_on_an_apple_gpu(
    prepare: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = prepare.Tokenizer.load()
    monkeypatch.setattr(prepare, "DEVICE", torch.device("meta"))
    monkeypatch.setattr(prepare, "EVAL_TOKENS", 4 * prepare.MAX_SEQ_LEN)

    def model(tokens: torch.Tensor) -> torch.Tensor:
        return torch.zeros(*tokens.shape, tokenizer.vocab_size, device=tokens.device)

    with (
        WithoutFloat64(),
        pytest.raises(ZeroDivisionError),
    ):  # the bytes, all zeros, are divided by in the end
        prepare.evaluate_bpb(model, tokenizer, 2)


def test_the_harness_reads_the_column_that_serves_apple_s_gpus() -> None:
    found = [Site({"device": device}).profile for device in ("cuda:0", "cuda", "mps", "cpu")]
    assert found == ["cuda", "cuda", "cpu", "cpu"]
    assert Site().profile == "cpu"
