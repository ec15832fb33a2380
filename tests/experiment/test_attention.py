"""Attention on an NVIDIA GPU: which kernel is chosen, what a run is given of it, and how it is called.

Not run on a GPU: a CPU shows what is chosen, and the operator's arguments on tensors without data.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pytest_autoresearch.runs.data import Data
from tests.experiment_files import cache, load_prepare, prepare

__all__ = ["cache", "prepare"]  # fixtures


@pytest.fixture
def as_on_cuda(monkeypatch: pytest.MonkeyPatch, cache: Path) -> ModuleType:
    """prepare.py on an H100, as far as it asks: torch is built for it, and `kernels` is not installed."""
    monkeypatch.setenv("AUTORESEARCH_DEVICE", "cuda")
    monkeypatch.setenv("AUTORESEARCH_CACHE", str(cache))
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda: (9, 0))
    monkeypatch.setattr("torch.backends.cuda.is_flash_attention_available", lambda: True)
    monkeypatch.setattr("torch.version.hip", None)
    monkeypatch.setitem(sys.modules, "kernels", None)
    return load_prepare()


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A snapshot of FlashAttention 3 as in the Hub's cache, and a stand-in for `kernels` that loads it.

    The real one wants a GPU. By hand its version 0.17.2 loaded a snapshot like this from both functions.
    """
    repository = tmp_path / "hub" / "kernels--kernels-community--flash-attn3"
    snapshot = repository / "snapshots" / "0123456789abcdef"
    variant = snapshot / "build" / "torch213-cxx11-cu130-x86_64-linux"
    variant.mkdir(parents=True)
    (repository / "blobs").mkdir()
    (repository / "blobs" / "aaaa").write_text("def flash_attn_func(*_, **options): return options\n")
    (variant / "__init__.py").symlink_to("../../../../blobs/aaaa")
    (tmp_path / "kernels.py").write_text(f"""
import os, pathlib, runpy, types
def get_kernel(name, *, version):
    assert "OFFLINE" not in os.environ
    assert (name, version) == ("kernels-community/flash-attn3", 1)
    return get_local_kernel({str(snapshot)!r})
def get_local_kernel(path):
    file = next(pathlib.Path(path).glob("build/*/__init__.py"))
    module = types.ModuleType("flash_attn3")
    module.__dict__.update(runpy.run_path(str(file)), __file__=str(file))
    return module
""")
    monkeypatch.syspath_prepend(tmp_path)
    return snapshot


def without_network(prepare: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have prepare.py be in a measured run, which gets its files from the harness."""
    given = Data(shared=tuple(prepare.attention_files()))

    def opened(name: str) -> Any:
        descriptor = given.open(name)
        assert descriptor is not None
        return os.fdopen(descriptor, "rb")

    prepare.attention.cache_clear()
    monkeypatch.setenv("OFFLINE", "1")
    monkeypatch.setattr(prepare, "measured", lambda: True)
    monkeypatch.setattr(prepare, "opened", opened)


def test_flash_attention_3_is_found_once_and_loaded_by_its_folder(
    as_on_cuda: ModuleType, kernel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "kernels")
    assert as_on_cuda.attention() == ["fa3 0123456789ab", str(kernel), str(kernel.parents[1] / "blobs")]
    note, *folders = as_on_cuda.attention_files()
    assert folders == [kernel, kernel.parents[1] / "blobs"]  # which the snapshot's links lead to
    assert not note.is_relative_to(as_on_cuda.data_folder())  # where what no run may read is, too
    without_network(as_on_cuda, monkeypatch)
    flash = as_on_cuda.flash_attention(128, "bfloat16")
    assert flash(1, 2, 3, causal=True, window_size=(7, 0)) == {"causal": True, "window_size": (7, 0)}


def test_without_it_torch_s_own_serves_and_one_line_says_so(
    as_on_cuda: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert as_on_cuda.attention() == as_on_cuda.attention() == ["fa2"]
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("no FlashAttention 3: ")
    without_network(as_on_cuda, monkeypatch)
    assert as_on_cuda.flash_attention(128, "bfloat16") is as_on_cuda.flash_attention_2


@pytest.mark.parametrize(
    ("told", "value"),
    [
        ("torch.cuda.get_device_capability", lambda: (7, 5)),
        ("torch.backends.cuda.is_flash_attention_available", lambda: False),
        ("torch.version.hip", "6.4"),
    ],
    ids=["Turing", "a build without it", "ROCm"],
)
def test_where_neither_runs_none_is_used(
    as_on_cuda: ModuleType, monkeypatch: pytest.MonkeyPatch, told: str, value: object
) -> None:
    monkeypatch.setattr(told, value)
    assert as_on_cuda.attention() == ["sdpa"]
    assert as_on_cuda.flash_attention(128, "bfloat16") is None


def test_what_the_kernels_do_not_take_is_left_to_pytorch(as_on_cuda: ModuleType, prepare: ModuleType) -> None:
    assert as_on_cuda.flash_attention(256, "float16") is not None
    assert [as_on_cuda.flash_attention(*shape) for shape in ((64, "float32"), (66, "bfloat16"))] == [None] * 2
    assert as_on_cuda.flash_attention(512, "bfloat16") is None
    assert prepare.flash_attention(128, "bfloat16") is None  # on a CPU


class Heard(TorchDispatchMode):
    """The options of torch's FlashAttention operators that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.options: dict[str, Mapping[str, Any]] = {}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if "_flash_attention" in str(func):
            self.options[str(func)] = kwargs or {}
        return func(*args, **kwargs or {})


def test_torch_s_own_keeps_its_window_forward_and_backward(prepare: ModuleType) -> None:
    q, k, v = (
        torch.randn(2, 16, 3, 32, device="meta", dtype=torch.bfloat16, requires_grad=True) for _ in range(3)
    )
    with Heard() as heard:
        found = prepare.flash_attention_2(q, k, v, causal=True, window_size=(4, 0))
        found.sum().backward()
    assert found.shape == q.shape
    assert found.dtype == torch.bfloat16
    assert q.grad is not None
    assert q.grad.shape == q.shape
    windows = [(o["window_size_left"], o["window_size_right"]) for o in heard.options.values()]
    assert windows == [(4, 0), (4, 0)], heard.options
