"""Trains in a second thread when the first has ended: the kernel then calls the process a zombie."""

import threading
import time

import prepare


def train(seconds):
    """Stand in for training: use the processor."""
    began = time.process_time()
    while time.process_time() - began < seconds:
        sum(range(10_000))


def go_on():
    prepare.start_clock()
    train(9)
    prepare.hand_in_shared_model()


threading.Thread(target=go_on).start()
prepare.system_call("exit", 0)
