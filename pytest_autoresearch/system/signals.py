"""Signals: when they stop a session, and when they wait."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import pytest

STOPS = (signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end pytest as Ctrl-C does: through teardown and with a summary.

    By default they would end pytest alone and leave its run training.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # Under nohup SIGHUP is ignored, and stays so.
    taken = {number: signal.signal(number, _stop) for number in STOPS if _is_default(number)}
    try:
        yield
    finally:
        for number, handler in taken.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Hold Ctrl-C, SIGTERM and SIGHUP back until the block is done: what it writes belongs together."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        waiting.append(number)

    held = {number: signal.signal(number, note) for number in (signal.SIGINT, *STOPS)}
    try:
        yield
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)
        if waiting:
            signal.raise_signal(waiting[0])


def _is_default(number: int) -> bool:
    return signal.getsignal(number) is signal.SIG_DFL


def _stop(number: int, _frame: FrameType | None) -> None:
    pytest.exit(f"stopped by {signal.Signals(number).name}")
