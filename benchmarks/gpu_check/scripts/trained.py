"""Runs the train.py of the working directory to its end; then, in the same process, what follows a run.

What it prints last: the score of the trained model as the script itself computes it, compiled and not, and
as the scorer computes it from the sealed model; seconds, and the accelerator's memory, of each part.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BATCHES = 10

sys.path.insert(0, str(Path.cwd()))
names: dict[str, Any] = {"__name__": "train"}
exec(compile(Path("train.py").read_text(), "train.py", "exec"), names)  # noqa: S102 - our own script

import torch  # noqa: E402 - not before the script, which sets up its environment

import prepare  # noqa: E402 - the experiment's, which the script has imported
from pytest_autoresearch.scoring.evaluation import LanguageModel  # noqa: E402
from pytest_autoresearch.scoring.export import seal  # noqa: E402
from pytest_autoresearch.scoring.interpreter import Interpreter, fill_memory  # noqa: E402

found: dict[str, Any] = {}
is_cuda = prepare.DEVICE.type == "cuda"
model, tokenizer = names["model"], names["tokenizer"]


@contextlib.contextmanager
def measuring(name: str) -> Iterator[None]:
    """Note the seconds, and the MiB of the accelerator at most, of what is done inside."""
    if is_cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    began = time.monotonic()
    yield
    if is_cuda:
        torch.cuda.synchronize()
        found[f"{name}_gpu_mb"] = round(torch.cuda.max_memory_allocated() / 2**20)
    found[f"{name}_s"] = round(time.monotonic() - began, 3)
    print("FOUND", json.dumps(found), flush=True)  # the last such line counts, however far this gets


if is_cuda:  # what a run holds while its score is computed elsewhere, and what it holds at least
    found["held_mb"] = round(torch.cuda.memory_reserved() / 2**20)
    torch.cuda.empty_cache()
    found["held_at_least_mb"] = round(torch.cuda.memory_reserved() / 2**20)
batches = prepare.make_dataloader(tokenizer, names["BATCH_ROWS"], prepare.MAX_SEQ_LEN, "train")
next(batches)
with measuring(f"packing_{BATCHES}_batches"):
    list(itertools.islice(batches, BATCHES))
with measuring("evaluation"):
    found["own"] = prepare.evaluate_bpb(model, tokenizer, 32)
with torch.no_grad(), prepare.eval_mode(names["compiled"]), measuring("compiling_for_evaluation"):
    names["compiled"](torch.zeros(32, prepare.MAX_SEQ_LEN, dtype=torch.int64, device=prepare.DEVICE))
with measuring("compiled_evaluation"):
    found["own_compiled"] = prepare.evaluate_bpb(names["compiled"], tokenizer, 32)
file = io.BytesIO()
with prepare.eval_mode(model), measuring("sealing"):
    sealed = seal(model, prepare.example())
    sealed.write(file)
found["sealed_mb"] = round(file.tell() / 2**20, 1)
task = LanguageModel(prepare)
fill_memory()
for name, share in (("sealed", 0.1), ("sealed_all_probed", 1.0)):  # the same score, if a GPU repeats itself
    with measuring(name):
        scored = task.evaluate(Interpreter(file.getvalue(), sealed.digest, task.device))
        found[name] = scored.probed(share).score
found["sealed_minus_own"] = found["sealed"] - found["own"]
print("FOUND", json.dumps(found))
