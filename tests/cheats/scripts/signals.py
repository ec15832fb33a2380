"""Stops or kills whoever measures it: here only with signals that harm nobody, should they arrive."""

import os
import signal
import time

from prepare import attempt, hand_in_shared_model

others = [int(number) for number in os.listdir("/proc") if number.isdigit() and int(number) != os.getpid()]


def reach(number):
    reached = []
    for process in others:
        try:
            os.kill(process, number)
        except OSError:
            continue
        with open(f"/proc/{process}/cmdline", "rb") as file:
            if b"-m\0pytest" in file.read():  # and pytest_autoresearch.scoring.server
                reached.append(process)
    return reached


attempt("look for pytest and the scorer", lambda: reach(0))
attempt("signal pytest and the scorer", lambda: reach(signal.SIGURG))
attempt("signal everybody", lambda: os.kill(-1, 0) or "signalled")
attempt("set the clock", lambda: time.clock_settime(time.CLOCK_REALTIME, time.time()) or "set")
attempt("go before everybody", lambda: os.setpriority(os.PRIO_PROCESS, 0, -20) or "gone")

hand_in_shared_model()
