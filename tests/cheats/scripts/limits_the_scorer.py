"""Hands in its model and then limits the scorer, so that no model after it gets a score."""

import os
import resource

from prepare import attempt, hand_in_shared_model, scorer, system_call

MEMORY = (4 << 30,) * 2  # less than the scorer wants to allow each of its children


def pin():
    before = os.sched_getaffinity(scorer())
    os.sched_setaffinity(scorer(), {min(before)})
    return len(before) > 1 and os.sched_getaffinity(scorer()) != before


hand_in_shared_model()

attempt("slow it down", lambda: os.setpriority(os.PRIO_PROCESS, scorer(), 19) or "slowed")
attempt("have it wait for everybody", lambda: system_call("ioprio_set", 1, scorer(), 3 << 13))
attempt(
    "give it what is left", lambda: os.sched_setscheduler(scorer(), os.SCHED_IDLE, os.sched_param(0)) or 1
)
attempt("pin it", pin)
attempt("take its memory", lambda: resource.prlimit(scorer(), resource.RLIMIT_DATA, MEMORY))
