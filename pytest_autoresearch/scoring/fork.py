"""A forked process that answers in lines: what a model does to the process that scores it dies with it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Iterator

from pytest_autoresearch.system.channel import Channel

LONGEST_ANSWER = 1 << 12  # bytes that a fork may say at a time


def forked(work: Callable[[], object]) -> int:
    """Start a fork that does *work* and ends; return its process id.

    Raises:
        OSError: there are too many processes, or too little memory.
    """
    process = os.fork()
    if process == 0:
        try:
            work()
            os._exit(0)  # nothing that the parent has registered is the fork's to do
        finally:
            os._exit(1)
    return process


class Fork:
    """The parent's handle of a fork. What the fork says is not trusted."""

    def __init__(self, work: Callable[[int], Iterable[bytes]]) -> None:
        """Start a fork that says the lines of *work*, which is given the descriptor to read questions from.

        Raises:
            OSError: there are too many processes or open files, or too little memory.
        """
        with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
            self._hearing, saying = os.pipe()
            ours.callback(os.close, self._hearing)
            theirs.callback(os.close, saying)
            reading, self._asking = os.pipe()
            theirs.callback(os.close, reading)
            ours.callback(os.close, self._asking)

            def say() -> None:
                ours.close()
                for line in work(reading):
                    os.write(saying, line + b"\n")

            self._process: int | None = forked(say)
            self._ours = ours.pop_all()
        self._heard = b""

    def ask(self, question: str) -> None:
        """Send the fork, which has answered, a line."""
        with contextlib.suppress(BrokenPipeError):  # its next answer is then how it ended
            os.write(self._asking, f"{question}\n".encode())

    def lines(self, seconds: float, asker: Channel) -> Iterator[bytes]:
        """Yield the lines that the fork says, until it closes its end or has said too much.

        Raises:
            TimeoutError: that takes longer than *seconds*, or the other end of *asker* is closed.
        """
        deadline = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self._hearing, select.POLLIN)
        poll.register(asker, 0)
        said = 0
        while said <= LONGEST_ANSWER:
            while b"\n" in self._heard:
                line, _, self._heard = self._heard.partition(b"\n")
                yield line
            ready = dict(poll.poll(max(deadline - time.monotonic(), 0) * 1000))
            if self._hearing not in ready:
                raise TimeoutError
            part = os.read(self._hearing, LONGEST_ANSWER)
            if not part:
                return
            said += len(part)
            self._heard += part

    def end(self) -> int:
        """Kill the fork if it still runs; return its exit code."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process, signal.SIGKILL)
            _, status = os.waitpid(self._process, 0)
            self._process, self._code = None, os.waitstatus_to_exitcode(status)
        return self._code

    def close(self) -> None:
        """End the fork, and close the pipes."""
        self.end()
        self._ours.close()
