"""Starts itself again when its time is used up, as another program in the same process."""

import os
import sys
import time

import prepare


def train(seconds):
    """Stand in for training: use the processor."""
    began = time.process_time()
    while time.process_time() - began < seconds:
        sum(range(10_000))


lap = int(os.environ.get("LAP", "1"))
if lap < 8:
    os.environ["LAP"] = str(lap + 1)
    number = os.environ["AUTORESEARCH_CHANNEL"]
    prepare.start_clock()
    os.environ["AUTORESEARCH_CHANNEL"] = number
    os.set_inheritable(prepare.wire().fileno(), True)
    train(1.2)
    os.execv(sys.executable, [sys.executable, "train.py"])
train(1.2)
prepare.hand_in_shared_model()
