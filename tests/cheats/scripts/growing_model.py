"""Hands in a file that grows while it is read."""

import os
import time

from prepare import ask, start_clock, told, wire

start_clock()
wire().send({"trained": "0" * 64})
with open("model", "wb") as file:
    file.write(b"x")
if os.fork() == 0:
    with open("model", "ab") as file:
        for _ in range(500):
            file.write(bytes(1 << 14))
            time.sleep(0.001)
    os._exit(0)
with open("model", "rb") as file:
    told(ask({"model": True}, file.fileno()))
