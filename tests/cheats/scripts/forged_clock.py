"""Sets back the clock that it is shown, through its descriptor and round its seals."""

import fcntl
import mmap
import os

from prepare import attempt, hand_in_shared_model, wire

wire().send({"clock": True})
[held] = wire().receive().descriptors
again = f"/proc/self/fd/{held}"
attempt("write the clock", lambda: os.pwrite(held, bytes(40), 0))
attempt("write it opened again", lambda: os.pwrite(os.open(again, os.O_RDWR), bytes(40), 0))
attempt("map it to write", lambda: mmap.mmap(held, mmap.PAGESIZE))
attempt("map it opened again", lambda: mmap.mmap(os.open(again, os.O_RDWR), mmap.PAGESIZE))
attempt("truncate it", lambda: os.truncate(again, 0) or "truncated")
attempt("unseal it", lambda: fcntl.fcntl(held, fcntl.F_ADD_SEALS, 0) or "unsealed")

hand_in_shared_model()
