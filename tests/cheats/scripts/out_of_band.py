"""Sends a byte out of band: the harness is told that there is something to read, and waits for it in vain."""

import socket
import time

import prepare

prepare.start_clock()
prepare.wire()._socket.send(b"x", socket.MSG_OOB)
while time.process_time() < 30:
    sum(range(10_000))
prepare.hand_in_shared_model()
