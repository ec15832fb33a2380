"""One line of live progress under a long item."""

from __future__ import annotations

import contextlib
import os
import time
import unicodedata
from typing import TYPE_CHECKING, Any, Self

from pytest_autoresearch.text import MARK, single_line

if TYPE_CHECKING:
    import pytest

REDRAW = 0.1  # seconds between redraws on a terminal
HEARTBEAT = 60.0  # seconds between lines in a log


class LiveLine:
    """What goes on, and what a run prints last, on the line below pytest's own, which stays as it is.

    On a terminal it is redrawn in place and removed at the end; in a log there is one line a minute.
    """

    def __init__(self, config: pytest.Config, name: str) -> None:
        self._name = name
        # Typed as Any: without -p terminal there is none, and then nothing is shown.
        self._reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
        self._capture = config.pluginmanager.get_plugin("capturemanager")
        self._terminal = (
            self._reporter is not None and self._reporter.isatty() and os.environ.get("TERM") != "dumb"
        )
        self._quiet = self._reporter is None or self._reporter.verbosity < 0
        self._drawn = False
        self._next = time.monotonic() + (0 if self._terminal else HEARTBEAT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.clear()

    def clear(self) -> None:
        """Remove the line."""
        if self._drawn:
            self._drawn = False
            self._draw("")

    def update(self, line: str) -> None:
        """Show *line*, if it is time to."""
        if self._quiet or time.monotonic() < self._next or not (text := single_line(line, 1000)):
            return
        if self._terminal:
            self._next = time.monotonic() + REDRAW
            self._drawn = True
            self._draw(f"  {text}")
        else:
            self._next = time.monotonic() + HEARTBEAT
            with self._uncaptured():
                # The newline comes first, so that pytest's own result line needs none before it.
                self._reporter.write(f"\n  {self._name}: {text}", flush=True)
                self._reporter.currentfspath = -2

    def quote(self, line: str, name: str = "") -> None:
        """Show a line that a run has printed, marked as such, if it is time to; *name* is that of the run."""
        if name:
            self._name = name
        if line.strip():
            self.update(MARK + line)

    def _draw(self, text: str) -> None:
        writer = self._reporter._tw  # noqa: SLF001 - there is no public way to the widths
        column = writer.width_of_current_line
        # Relative motion, so that it does not matter whether the screen scrolled.
        back = "\x1b[A\r" + (f"\x1b[{column}C" if column else "")
        with self._uncaptured():  # under capture there is no terminal to ask for its width
            text = fit(text, writer.fullwidth - 1)
            dim = f"\x1b[2m{text}\x1b[22m" if text else ""
            # Unlike write, write_raw leaves pytest's count of columns alone.
            self._reporter.write_raw(f"\n\r\x1b[K{dim}{back}", flush=True)

    def _uncaptured(self) -> contextlib.AbstractContextManager[None]:
        if self._capture is None:
            return contextlib.nullcontext()
        return self._capture.global_and_fixture_disabled()  # type: ignore[no-any-return]  # a plugin, untyped


def say(config: pytest.Config, line: str) -> None:
    """Write a line to the terminal, unless pytest is quiet."""
    reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and reporter.verbosity >= 0:
        reporter.write_line(line)


def fit(text: str, width: int) -> str:
    """Return *text* in at most *width* columns, dropping ``|``-separated fields from the right.

    What is wider would wrap, and be redrawn in the wrong place.
    """
    fields = text.split(" | ")
    while len(fields) > 1 and columns(" | ".join(fields)) > width:
        fields.pop()
    text = " | ".join(fields)
    room = width
    for position, character in enumerate(text):
        if (room := room - columns(character)) < 0:
            return text[:position]
    return text


def columns(text: str) -> int:
    """Return how many columns *text* takes at most: it may have marks that take none."""
    return sum(2 if unicodedata.east_asian_width(character) in "FW" else 1 for character in text)
