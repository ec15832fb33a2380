"""Writes a line that never ends, to have the harness keep all of it."""

import os

from prepare import wire

for _ in range(17):
    os.write(wire().fileno(), b"x" * (1 << 16))
