"""Signals stop a session with its teardown, and wait while something is written."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import NoReturn

import pytest

from pytest_autoresearch.system.signals import deferred, stoppable


class StoppedHere(Exception):
    """Raised in place of what ends pytest."""


def stop(reason: str) -> NoReturn:
    raise StoppedHere(reason)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_stops_with_its_name(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(StoppedHere, match=rf"^stopped by {number.name}$"), stoppable(stop):
        signal.raise_signal(number)
    assert signal.getsignal(number) is before


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stoppable(stop):
            signal.raise_signal(signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C is heard, though a shell starts what it puts into the background with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_a_signal_waits_for_the_end_of_a_block() -> None:
    done = []

    def write() -> None:
        with deferred():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
            done.append(True)

    with stoppable(stop), pytest.raises(KeyboardInterrupt):
        write()
    assert done


@pytest.mark.parametrize("block", [deferred, lambda: stoppable(stop)], ids=["deferred", "stoppable"])
def test_outside_the_main_thread_it_is_an_error(block: Callable[[], AbstractContextManager[None]]) -> None:
    raised = []

    def enter() -> None:
        try:
            with block():
                pass
        except RuntimeError as error:
            raised.append(str(error))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert raised == ["only the main thread can handle signals"]
