"""Looks through every descriptor it was given, and asks the harness's own for more."""

import os
from pathlib import Path

from prepare import DATA, attempt, hand_in_shared_model, start_clock, wire

start_clock()
ours = wire().fileno()


def held():
    found = []
    for number in range(3, 1024):
        if number == ours:
            continue
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue
        if "/proc/" not in target and "memfd" not in target:
            found.append(target)
    return found


def through_a_folder():
    for number in range(3, 1024):
        try:
            return os.open(f"../{DATA.name}/held-out/val.tokens", os.O_RDONLY, dir_fd=number)
        except OSError:
            continue


attempt("find a descriptor left open", held)
attempt("open validation through a folder left open", through_a_folder)
attempt("read what the wire's descriptor leads to", Path(f"/proc/self/fd/{ours}").read_bytes)

hand_in_shared_model()
