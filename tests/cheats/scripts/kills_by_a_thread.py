"""Limits the processor's time of pytest to what it has used already, by the number of any of its threads."""

import os
import resource

from prepare import attempt, hand_in_shared_model, pytest_itself


def limit():
    reached = []
    for name in os.listdir(f"/proc/{pytest_itself()}/task"):
        try:
            resource.prlimit(int(name), resource.RLIMIT_CPU, (1, 1))
        except OSError:
            continue
        reached.append(name)
    return reached


hand_in_shared_model()

attempt("limit pytest by a thread", limit)
