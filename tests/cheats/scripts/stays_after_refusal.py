"""Breaks the protocol and stays for as long as it may, to cost the campaign a run's whole time."""

import os
import time

from prepare import wire

os.write(wire().fileno(), b"nonsense\n")
time.sleep(40)
