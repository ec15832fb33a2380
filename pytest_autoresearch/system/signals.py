"""Signals: which of them stop a session, and when they wait. Only the main thread handles signals."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from types import FrameType

TERMINATIONS = (signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def stoppable(stop: Callable[[str], object]) -> Iterator[None]:
    """Call *stop* with a reason on SIGTERM and SIGHUP; it should raise what ends the session with teardown.

    By default these signals end the process at once, and its run goes on training. A signal that is ignored,
    as SIGHUP is under nohup, stays ignored. Off the main thread, signals keep their handlers.
    """

    def handle(number: int, _frame: FrameType | None) -> None:
        stop(f"stopped by {signal.Signals(number).name}")

    on_main = threading.current_thread() is threading.main_thread()
    default = [number for number in TERMINATIONS if on_main and signal.getsignal(number) is signal.SIG_DFL]
    with _handled_by(handle, default):
        yield


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Hold SIGINT, SIGTERM and SIGHUP back to the end of the block, so that its writes stay together.

    Raises:
        RuntimeError: this is not the main thread, whose end could still interrupt the block.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("only the main thread can defer signals")
    waiting: list[int] = []
    try:
        with _handled_by(lambda number, _frame: waiting.append(number), (signal.SIGINT, *TERMINATIONS)):
            yield
    finally:
        if waiting:
            signal.raise_signal(waiting[0])


@contextlib.contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None], numbers: Iterable[int]) -> Iterator[None]:
    replaced = {}
    try:
        for number in numbers:
            replaced[number] = signal.signal(number, handler)
        yield
    finally:
        for number, before in replaced.items():
            signal.signal(number, before)
