"""Trains past budget and grace in one step, in which nobody looks, and then says that it is done."""

import time

import prepare


def train(seconds):
    """Stand in for training: use the processor."""
    began = time.process_time()
    while time.process_time() - began < seconds:
        sum(range(10_000))


prepare.start_clock()
train(6)
prepare.hand_in_shared_model()
