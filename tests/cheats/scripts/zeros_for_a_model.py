"""Hands in /dev/zero, which has no end."""

from prepare import ask, start_clock, told, wire

start_clock()
wire().send({"trained": "0" * 64})

with open("/dev/zero", "rb") as zeros:
    told(ask({"model": True}, zeros.fileno()))
