"""Leaves two hundred processes behind."""

import os
import time

from prepare import hand_in_shared_model

for _ in range(200):
    if os.fork() == 0:
        os.setsid()
        os.closerange(0, 1024)
        time.sleep(300)

hand_in_shared_model()
