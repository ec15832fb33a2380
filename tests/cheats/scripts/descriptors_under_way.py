"""Leaves so many descriptors under way that its user's other processes can send none."""

import array
import os
import resource
import socket

from prepare import ask, digest, opened, start_clock, told, wire

start_clock()
wire().send({"trained": digest()})
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
null, kept = os.open("/dev/null", os.O_RDONLY), []
with opened("shared.sealed") as file:
    try:
        for _ in range(hard // 250 + 2):
            kept += socket.socketpair()
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [null] * 250))]
            kept[-1].sendmsg([b"x"], rights)
    except OSError as error:
        print(error, flush=True)
        for end in kept[
            -4:
        ]:  # the last pair holds nothing, and the one before makes room for this run's model
            end.close()
    told(ask({"model": True}, file.fileno()))
