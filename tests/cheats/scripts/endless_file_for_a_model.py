"""Hands in a file of the kernel's that is regular, is said to be empty, and has half a terabyte."""

from prepare import ask, start_clock, told, wire

start_clock()
wire().send({"trained": "0" * 64})
with open("/proc/self/pagemap", "rb") as file:
    told(ask({"model": True}, file.fileno()))
