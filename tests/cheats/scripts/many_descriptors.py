"""Sends descriptors by the dozen, so that the harness runs out of them."""

import array
import os
import socket

from prepare import wire

end = socket.socket(fileno=os.dup(wire().fileno()))
null = os.open(os.devnull, os.O_RDONLY)
for _ in range(40):
    rights = array.array("i", [null] * 3)
    end.sendmsg([b" "], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
