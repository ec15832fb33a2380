"""Trains in grandchildren that have lost their parents, while it waits itself."""

import os
import time

import prepare


def train(seconds):
    """Stand in for training: use the processor."""
    began = time.process_time()
    while time.process_time() - began < seconds:
        sum(range(10_000))


prepare.start_clock()
for _ in range(100):
    if os.fork() == 0:
        if os.fork() == 0:
            os.setsid()
            train(0.1)
        os._exit(0)
    os.wait()
    time.sleep(0.12)
prepare.hand_in_shared_model()
