"""Leaves a daemon behind that trains on: forked twice, in a session of its own, deaf to signals."""

import os
import signal
import time

from prepare import hand_in_shared_model

if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_IGN)
        os.closerange(0, 1024)
        time.sleep(300)
    os._exit(0)

hand_in_shared_model()
