"""Signals: which of them stop a session, when they wait, and which has ended a process."""

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

    A signal that is ignored, as SIGHUP is under nohup, stays ignored.

    Raises RuntimeError outside the main thread.
    """
    _require_main_thread()

    def handle(number: int, _frame: FrameType | None) -> None:
        stop(f"stopped by {signal.Signals(number).name}")

    default = [number for number in TERMINATIONS if signal.getsignal(number) is signal.SIG_DFL]
    with _handled_by(handle, default):
        yield


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Hold SIGINT, SIGTERM and SIGHUP back to the end of the block, so that its writes stay together.

    Raises RuntimeError outside the main thread.
    """
    _require_main_thread()
    waiting: list[int] = []
    try:
        with _handled_by(lambda number, _frame: waiting.append(number), (signal.SIGINT, *TERMINATIONS)):
            yield
    finally:
        if waiting:
            signal.raise_signal(waiting[0])


def _require_main_thread() -> None:
    if threading.current_thread() is not threading.main_thread():  # Python handles signals there alone
        raise RuntimeError("only the main thread can handle signals")


@contextlib.contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None], numbers: Iterable[int]) -> Iterator[None]:
    with contextlib.ExitStack() as replaced:
        for number in numbers:
            replaced.callback(signal.signal, number, signal.signal(number, handler))
        yield


def exit_reason(code: int) -> str:
    """Return in words how a process ended, from an exit code that is negative for a signal."""
    if code >= 0:
        return f"exit code {code}"
    names = {number.value: number.name for number in signal.Signals}  # real-time signals have none
    return f"killed by {names.get(-code, f'signal {-code}')}"
