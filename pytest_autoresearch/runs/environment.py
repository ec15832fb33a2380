"""What is passed on to a run of this process's environment, and what the harness adds."""

from __future__ import annotations

import os
import re

# Enough to find an interpreter, an accelerator and a language, and no key. Triton's own folders are left out,
# because a sandbox makes them read-only, and so are its remote caches, which other runs would share.
INHERITED = re.compile(
    r"PATH|HOME|USER|LANG|LC_.*|TZ|TMPDIR|LD_LIBRARY_PATH|XDG_CACHE_HOME|AUTORESEARCH_CACHE"
    r"|CUDA_.*|NVIDIA_.*|ROCR_.*|HIP_.*|HSA_.*|HF_HOME|HF_HUB_OFFLINE|OMP_.*|MKL_.*"
    r"|CC|CXX|PYTORCH_.*|TORCH_.*|TRITON_(?!HOME|CACHE_|DUMP_DIR|OVERRIDE_DIR|REMOTE_|REDIS_).*"
)
# A name with one of these in it is never inherited.
SECRET = re.compile("KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|AUTH(?!OR)", re.IGNORECASE)


def inherited() -> dict[str, str]:
    """Return the variables of this process that a run inherits."""
    names = (name for name in os.environ if INHERITED.fullmatch(name) and not SECRET.search(name))
    return {name: os.environ[name] for name in names}


def told(seed: int, time_budget: float | None, device: str | None = None) -> dict[str, str]:
    """Return the variables by which the harness tells a script its seed, budget in seconds and device."""
    variables = {"AUTORESEARCH_SEED": str(seed), "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    variables["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # else an index could mean another GPU than the sandbox's
    if time_budget is not None:
        variables["AUTORESEARCH_TIME_BUDGET"] = f"{time_budget:g}"
    if device is not None:
        variables["AUTORESEARCH_DEVICE"] = device
    return variables
