"""Hands in a pipe with a name, at which the harness would wait for ever."""

import os

from prepare import ask, start_clock, told, wire

start_clock()
wire().send({"trained": "0" * 64})
os.mkfifo("model")
told(ask({"model": True}, os.open("model", os.O_RDWR)))
