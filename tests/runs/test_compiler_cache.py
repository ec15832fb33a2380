"""The compilers' caches that runs begin with. Triton is not there without a GPU: its files are made up."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_autoresearch.errors import RunCrashed
from pytest_autoresearch.judging.rules import Always
from pytest_autoresearch.records.spec import ExperimentSpec
from pytest_autoresearch.runs import compiler_cache
from pytest_autoresearch.runs.compiler_cache import CacheUse, CompilerCache
from pytest_autoresearch.runs.config import RunConfig
from pytest_autoresearch.runs.data import Data
from pytest_autoresearch.runs.limits import SealedLimits
from pytest_autoresearch.runs.request import RunRequest
from pytest_autoresearch.runs.run import measure
from pytest_autoresearch.runs.site import Site
from pytest_autoresearch.scoring.client import Scorer
from pytest_autoresearch.system import temporary
from tests.enforcers import VARIANTS, usable
from tests.project import Project

SPEC = ExperimentSpec(Path("/experiment"))
ON_CUDA = Site({"device": "cuda"})


@pytest.fixture
def cache() -> Iterator[CompilerCache]:
    found = CompilerCache()
    yield found
    found.close()


def request(script: str, use: CacheUse) -> RunRequest:
    return RunRequest("candidate", {"train.py": script}, 1, Always(answer=True), cache_use=use, limit=200)


def run_with(folder: Path, text: str) -> Path:
    """Make up the folder of a run that has compiled something."""
    file = folder / compiler_cache.FOLDER / "triton" / "ABC" / "__grp__kernel.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"child_paths": {"kernel.cubin": str(file.with_name("kernel.cubin"))}}))
    file.with_name("kernel.cubin").write_text(text)
    return folder


def of_trial(cache: CompilerCache, folder: Path) -> str | None:
    """Return what a run in *folder* finds through the list of files, as Triton looks it up."""
    folder.mkdir()
    cache.copy_to(folder)
    lists = list((folder / compiler_cache.FOLDER).rglob("__grp__*"))
    if not lists:
        return None
    place = Path(json.loads(lists[0].read_text())["child_paths"]["kernel.cubin"])
    assert folder in place.parents
    return place.read_text()


def test_later_runs_begin_with_what_the_first_has_compiled(cache: CompilerCache, tmp_path: Path) -> None:
    cache.keep(run_with(tmp_path / "first", "first"))
    cache.keep(run_with(tmp_path / "second", "second"))
    assert of_trial(cache, tmp_path / "trial") == "first"


def test_too_much_is_not_kept(cache: CompilerCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler_cache, "LARGEST", 1000)
    cache.keep(run_with(tmp_path / "first", "x" * 2000))
    assert of_trial(cache, tmp_path / "trial") is None


def test_a_copy_that_fails_is_no_error(cache: CompilerCache, tmp_path: Path) -> None:
    cache.keep(run_with(tmp_path / "first", "first"))
    (tmp_path / "trial").mkdir()
    (tmp_path / "trial" / compiler_cache.FOLDER).mkdir()  # so that it cannot be made
    cache.copy_to(tmp_path / "trial")
    assert not (tmp_path / "trial" / compiler_cache.FOLDER).exists()


APPEND = """
import os
from pathlib import Path
file = Path(os.environ["TORCHINDUCTOR_CACHE_DIR"], "kernel")
file.parent.mkdir(parents=True, exist_ok=True)
with file.open("a+") as lines:
    lines.write("x")
print("val_bpb:", file.stat().st_size)
"""


@pytest.mark.parametrize("name", VARIANTS)
def test_no_trial_writes_where_another_one_reads(name: str, cache: CompilerCache) -> None:
    with usable(name) as enforcer:
        config = RunConfig(SPEC, ON_CUDA, enforcer=enforcer)

        def score(use: CacheUse) -> float:
            return measure(request(APPEND, use), config, caches=cache).score

        uses: list[CacheUse] = ["empty", "copy", "fill", "empty", "copy", "copy"]
        assert [score(use) for use in uses] == [1, 1, 1, 1, 2, 2]


class Idle(Scorer):
    """One that is never asked, and need not get ready."""

    def wait(self) -> None: ...


LEARNS = """
import os
from pathlib import Path
from pytest_autoresearch import harness
folder = Path(os.environ["TRITON_CACHE_DIR"])
print("found", *sorted(path.name for path in folder.glob("*")))
folder.mkdir(parents=True, exist_ok=True)
(folder / "kernel").write_text("compiled")
data = harness.open_data("train.tokens").read()
(folder / "weights").write_bytes(data)
"""


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_nothing_is_kept_that_has_seen_training_data(
    device: str, cache: CompilerCache, tmp_path: Path
) -> None:
    (tmp_path / "train.tokens").write_bytes(b"tokens")
    scorer = Idle("", (), "none", {}, 1.0)
    data, limits = Data(training=(tmp_path / "train.tokens",)), SealedLimits(10.0, "wall")
    config = RunConfig(SPEC, Site({"device": device}, data, limits))
    lines: list[str] = []
    uses: list[CacheUse] = ["fill", "copy"]
    for use in uses:
        with pytest.raises(RunCrashed, match="without handing in a model"):
            measure(
                request(LEARNS, use),
                config,
                scorer=scorer,
                calibration=scorer,
                caches=cache,
                on_line=lines.append,
            )
    assert lines == ["found", "found kernel" if device == "cuda" else "found"]


def test_a_cache_that_cannot_be_copied_leaves_nothing(cache: CompilerCache, tmp_path: Path) -> None:
    folder = run_with(tmp_path / "first", "first")
    os.mkfifo(folder / compiler_cache.FOLDER / "pipe")
    before = set(temporary._own().iterdir())
    cache.keep(folder)
    assert of_trial(cache, tmp_path / "trial") is None
    assert set(temporary._own().iterdir()) == before


WARM = """
import os
from pathlib import Path
folder = Path(os.environ["TRITON_CACHE_DIR"])
print("found", folder.is_dir())
folder.mkdir(parents=True, exist_ok=True)
(folder / "kernel").write_text("compiled")
"""


def test_a_campaign_begins_with_it_at_its_start_and_not_at_what_a_trial_has_left(project: Project) -> None:
    def found(number: int) -> bool:
        log = project.path / ".autoresearch" / "t" / "logs" / f"{number:04d}.log"
        return "found True" in log.read_text()

    project.script.write_text(WARM + project.script.read_text())
    prepare = project.script.with_name("prepare.py")
    prepare.write_text(prepare.read_text().replace("device:       cpu", "device: cuda"))
    project.commit().proposes(("LR = 0.04", "LR = 0.06"), ("LR = 0.06", "LR = 0.07"))
    project.research("--autoresearch-trials=1").exits(0).decides("kept")
    assert found(1)  # and no run of the baseline had found it, or it would not be the first to make it
    project.research("--autoresearch-trials=1").exits(0).decides("kept", "discarded")
    assert not found(2)  # what a kept trial's run has left is not for others


POOL = """
import os
from torch._inductor import config
from torch._inductor.async_compile import AsyncCompile
assert config.compile_threads > 1
print("val_bpb:", 0.0 + (AsyncCompile.process_pool().submit(os.getpid).result(60) != os.getpid()))
"""
COMPILE = """
import torch
torch._inductor.config.cpp_cache_precompile_headers = False  # which would take longest, and be used once
from torch._dynamo.utils import counters
print(torch.compile(lambda x: (x.sin() + 1).relu().sum())(torch.ones(64, 64)))
print("val_bpb:", float(counters["inductor"]["fxgraph_cache_hit"]))
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_pool_of_compiling_processes_works_under_bubblewrap() -> None:
    with usable("bwrap") as enforcer:
        config = RunConfig(SPEC, ON_CUDA, enforcer=enforcer)
        run = measure(request(POOL, "empty"), config)
        assert run.score == 1


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_torch_has_compiled_is_not_compiled_again(cache: CompilerCache) -> None:
    with usable("bwrap") as enforcer:
        config = RunConfig(SPEC, ON_CUDA, enforcer=enforcer)
        uses: list[CacheUse] = ["fill", "copy"]
        runs = (measure(request(COMPILE, use), config, caches=cache) for use in uses)
        assert [run.score for run in runs] == [0, 1]
