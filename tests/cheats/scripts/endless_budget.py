"""Sets TIME_BUDGET to thirty years and trains. RE-Bench, METR 2025."""

import time

import prepare

prepare.TIME_BUDGET = 1e9


def train(seconds):
    """Stand in for training: use the processor."""
    began = time.process_time()
    while time.process_time() - began < seconds:
        sum(range(10_000))


prepare.start_clock()
train(min(prepare.TIME_BUDGET, 20))
prepare.hand_in_shared_model()
