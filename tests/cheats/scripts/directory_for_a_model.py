"""Hands in a directory."""

import os

from prepare import ask, start_clock, told, wire

start_clock()
wire().send({"trained": "0" * 64})
told(ask({"model": True}, os.open(".", os.O_RDONLY)))
