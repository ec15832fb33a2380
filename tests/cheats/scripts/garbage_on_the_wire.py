"""Writes what is no message: text, nesting without end, numbers without end."""

import os

from prepare import wire

os.write(wire().fileno(), b"[" * 200_000 + b"]" * 200_000 + b"\n")
