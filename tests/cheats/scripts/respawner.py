"""Leaves a daemon behind that lives in a new process every few milliseconds."""

import os
import signal
import time

from prepare import hand_in_shared_model

if os.fork() == 0:
    os.setsid()
    os.closerange(0, 1024)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for _ in range(20_000):
        time.sleep(0.004)
        if os.fork():
            os._exit(0)

hand_in_shared_model()
