"""Errors and signals become pytest's here, and only here."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NoReturn

import pytest

from pytest_autoresearch.errors import USAGE, AutoresearchError, SessionStopped
from pytest_autoresearch.system.signals import stoppable


@contextlib.contextmanager
def configuring() -> Iterator[None]:
    """Show an error while pytest is configured in one line, and end with its exit code."""
    try:
        yield
    except AutoresearchError as error:
        if error.exit_code == USAGE:
            raise pytest.UsageError(str(error)) from error
        end(error)


def end(error: AutoresearchError, remark: str = "", exit_code: int | None = None) -> NoReturn:
    """End a session with the error and a *remark* in one line, by default with the error's exit code."""
    pytest.exit(f"{error}{remark}", returncode=error.exit_code if exit_code is None else exit_code)


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end pytest as Ctrl-C does: through teardown and with a summary."""
    try:
        with stoppable(_stop):
            yield
    except SessionStopped as stopped:
        if isinstance(stopped.__cause__, pytest.exit.Exception):
            raise stopped.__cause__ from None
        pytest.exit(str(stopped))


@contextlib.contextmanager
def exits_pass() -> Iterator[None]:
    """Let ``pytest.exit`` in a hook end the session: to the loop it would be an error like any other."""
    try:
        yield
    except pytest.exit.Exception as error:
        raise SessionStopped(str(error)) from error


def _stop(reason: str) -> NoReturn:
    raise SessionStopped(reason)
