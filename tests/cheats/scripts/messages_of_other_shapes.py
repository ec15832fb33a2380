"""Sends JSON of every shape but a message's, after a long row of harmless questions."""

import os

from prepare import wire

for text in (
    '{"open": "library", "descriptors": 0}',
    '{"open": "\\ud800", "descriptors": 0}',
    '{"open": "val.tokens\\u0000", "descriptors": false}',
    '{"trained": {"0": 1}, "descriptors": 1e0}',
):
    os.write(wire().fileno(), text.encode() + b"\n")
