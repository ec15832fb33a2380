"""What a run finds in its environment. Not run on a GPU: what CUDA and compilers make of it is not seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_autoresearch.records.spec import ExperimentSpec
from pytest_autoresearch.runs.config import RunConfig
from pytest_autoresearch.runs.environment import inherited
from pytest_autoresearch.runs.site import Site
from pytest_autoresearch.sandbox.policy import Enforcer
from tests.project import Project

SPEC = ExperimentSpec(Path("/experiment"))


def environment(enforcer: Enforcer = "bwrap", device: str | None = "cuda") -> dict[str, str]:
    site = Site({} if device is None else {"device": device})
    return RunConfig(SPEC, site, enforcer=enforcer).environment(1, Path("/run-1"))


@pytest.mark.parametrize(
    ("name", "is_inherited"),
    [
        ("CC", True),
        ("CXX", True),
        ("HSA_OVERRIDE_GFX_VERSION", True),
        ("PYTORCH_NVML_BASED_CUDA_CHECK", True),
        ("TORCH_CUDNN_V8_API_LRU_CACHE_LIMIT", True),
        ("TRITON_PTXAS_PATH", True),
        ("TRITON_CACHE_MANAGER", False),
        ("TRITON_HOME", False),
        ("TRITON_REDIS_HOST", False),
        ("CCACHE_DIR", False),
        ("TORCH_API_KEY", False),
        ("CUDA_TOKEN_FILE", False),
        ("TRITON_SECRET", False),
        ("PYTORCH_PASSWORD", False),
        ("HSA_auth_token", False),
    ],
)
def test_what_is_inherited(name: str, monkeypatch: pytest.MonkeyPatch, *, is_inherited: bool) -> None:
    monkeypatch.setenv(name, "x")
    assert (name in inherited()) == is_inherited


@pytest.mark.parametrize("enforcer", ["bwrap", "landlock", "none"])
def test_compilers_write_into_the_runs_own_folder(
    enforcer: Enforcer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR"):
        monkeypatch.setenv(name, "/elsewhere")
    found = environment(enforcer)
    assert found["TRITON_CACHE_DIR"].startswith("/run-1/")
    assert found["TORCHINDUCTOR_CACHE_DIR"].startswith("/run-1/")


@pytest.mark.parametrize(
    ("enforcer", "device", "threads"),
    [("bwrap", "cuda", None), ("bwrap", "cpu", "1"), ("bwrap", None, "1"), ("landlock", "cuda", "1")],
)
def test_compilers_use_all_cores_where_that_helps_and_works(
    enforcer: Enforcer, device: str | None, threads: str | None
) -> None:
    assert environment(enforcer, device).get("TORCHINDUCTOR_COMPILE_THREADS") == threads


def test_memory_on_cuda_is_in_segments_that_expand_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        monkeypatch.delenv(name, raising=False)
    assert environment()["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"
    assert "PYTORCH_ALLOC_CONF" not in environment(device="cpu")
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "max_split_size_mb:512")
    assert "PYTORCH_ALLOC_CONF" not in environment()


def test_gpus_are_counted_alike_by_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    assert environment()["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


SEALED = """
import json, os
from pathlib import Path
DEVICE = type("Device", (), {"type": "cpu"})
class Tokenizer:
    @classmethod
    def load(cls):
        raise SystemExit("the scorer has " + repr(os.environ.get("AUTORESEARCH_DEVICE")))
if __name__ == "__main__":
    print("---")
    print("device: cuda:0" if os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID" else "device: another")
    print("time_budget: 1")
    print("validation_data:", json.dumps([str(Path(os.environ["VALIDATION"]))]))
"""


def test_runs_are_told_the_device_that_prepare_has_found(project: Project) -> None:
    prepare = project.script.with_name("prepare.py")
    prepare.write_text(
        prepare.read_text().replace('"device:       cpu"', '"device:", os.environ["CUDA_DEVICE_ORDER"]')
    )
    prepare.write_text("import os\n" + prepare.read_text())
    script = project.script.read_text()
    project.script.write_text(
        f"import os\nassert os.environ['AUTORESEARCH_DEVICE'] == 'PCI_BUS_ID'\n{script}"
    )
    project.commit().research("--autoresearch-trials=0").exits(0)


def test_the_scorer_is_told_it_too(project: Project, tmp_path: Path) -> None:
    project.script.with_name("prepare.py").write_text(SEALED)
    (tmp_path / "validation").write_text("x")
    session = project.commit().research("--autoresearch-trials=0", VALIDATION=str(tmp_path / "validation"))
    session.exits(1).shows("the scorer has 'cuda:0'")
