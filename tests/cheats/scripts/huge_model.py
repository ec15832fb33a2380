"""Hands in three gigabytes of nothing, which cost it no room on the disk."""

from prepare import ask, start_clock, told, wire

start_clock()
wire().send({"trained": "0" * 64})

with open("model", "w+b") as file:
    file.truncate(3 << 30)
    told(ask({"model": True}, file.fileno()))
