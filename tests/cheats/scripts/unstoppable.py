"""Has its processes wake themselves a thousand times a second, and wear out the memory meanwhile."""

import ctypes
import os
import signal
import struct
import time

import prepare

CLOCK_MONOTONIC, MILLISECOND = 1, 1_000_000
LIBRARY = ctypes.CDLL(None)


def wake_up_again_and_again():
    """By timers whose signal is SIGCONT: it reaches those that are stopped, and only a SIGSTOP ends them."""
    signal.signal(signal.SIGCONT, lambda *_: None)  # newer kernels stop a timer whose signal is ignored
    event = struct.pack("Qii48x", 0, signal.SIGCONT, 0)
    for number in range(1, 201):
        timer = ctypes.c_void_p()
        LIBRARY.timer_create(CLOCK_MONOTONIC, event, ctypes.byref(timer))
        times = struct.pack("4q", 0, 200 * MILLISECOND, 0, number * MILLISECOND)
        LIBRARY.timer_settime(timer, 0, times, None)


def train(seconds):
    """Stand in for training: use the processor."""
    began = time.process_time()
    while time.process_time() - began < seconds:
        sum(range(10_000))


prepare.start_clock()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        wake_up_again_and_again()
        memory = bytearray(64 << 20)
        while True:
            memory = bytearray(memory)
    os._exit(0)
wake_up_again_and_again()
train(9)
prepare.hand_in_shared_model()
