"""The experiment's files as the tests use them: prepare.py loaded, scripts run in processes of their own."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

EXPERIMENT = Path(__file__).parents[1] / "experiment"


def load_prepare() -> ModuleType:
    """A fresh prepare.py, that has verified nothing yet."""
    spec = importlib.util.spec_from_file_location("prepare", EXPERIMENT / "prepare.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def start(*arguments: str | Path, cache: Path, **environment: str) -> subprocess.Popen[str]:
    """A Python process that prepares into `cache`, on the CPU whatever the machine has."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("AUTORESEARCH_", "HF_"))
    }
    fixed = {"AUTORESEARCH_CACHE": str(cache), "PYTHONPATH": str(EXPERIMENT)}
    fixed |= {"AUTORESEARCH_DEVICE": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        env=inherited | fixed | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*arguments: str | Path, cache: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The same, waited for."""
    process = start(*arguments, cache=cache, **environment)
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared data, shared by all tests that only read it."""
    return tmp_path_factory.getbasetemp() / "autoresearch-cache"


@pytest.fixture(scope="session")
def prepare(cache: Path) -> Iterator[ModuleType]:
    """prepare.py, its data ready."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTORESEARCH_CACHE", str(cache))
        patch.setenv("AUTORESEARCH_DEVICE", "cpu")
        module = load_prepare()
        module.prepare()
        yield module
