"""Every exception that can reach a person, in one tree; SessionStopped alone is no error.

Each message is one line for a person: what is wrong and, after a colon, what to do. ``exit_code`` is pytest's
exit code if the error ends the session: 4 where the user has to change something before anything can run,
else 1.
Only :mod:`pytest_autoresearch.plugin` translates these into pytest's own exceptions.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from pytest_autoresearch.text import MARK, single_line

FAILED, USAGE = 1, 4  # pytest's exit codes


class AutoresearchError(Exception):
    """The base class: a *reason* in one line, with the *hint* what to do about it, if there is one."""

    exit_code: ClassVar[int] = FAILED
    length: ClassVar[int] = 300
    """Characters of the message at most: parts of it may come from files, programs and models."""

    def __init__(self, reason: str, *, hint: str = "") -> None:
        super().__init__(single_line(f"{reason}: {hint}" if hint else reason, self.length))


class UsageError(AutoresearchError):
    """An option, an ini value or a combination of them is invalid."""

    exit_code = USAGE
    length = 1000


class SandboxUnavailable(UsageError):
    """A sandbox cannot be used on this machine."""


class RepositoryError(AutoresearchError):
    """The repository, or a campaign in it, cannot be worked with as it is."""

    exit_code = USAGE
    length = 1000  # names of files and of platforms may be anything


class LockHeld(RepositoryError):
    """Another process works on the campaign or in the working tree; the message says which process."""


class BaselineFormatError(AutoresearchError):
    """The text is not a ``baseline.json`` of this version."""

    exit_code = USAGE


DISK_FULL, DISK_READ_ONLY, DISK_FAILS = "the disk is full", "the disk cannot be written to", "the disk fails"
DISK_HINTS = {
    DISK_FULL: "free some space, and start again",
    DISK_READ_ONLY: "make it writable, and start again",
    DISK_FAILS: "check the device, and start again",
}


class StorageError(AutoresearchError):
    """The harness cannot write. *kind* is a key of :data:`DISK_HINTS`."""

    length = 500

    def __init__(self, kind: str, what: str) -> None:
        super().__init__(f"{kind}: {what}", hint=DISK_HINTS[kind])
        self.kind = kind


class RunFailed(AutoresearchError):
    """A run gave no score; *tail* is the end of its output, each line with a mark that says so."""

    def __init__(self, reason: str, tail: Iterable[str]) -> None:
        super().__init__(reason)
        self.tail = [MARK + single_line(line) for line in tail]


class RunCrashed(RunFailed):
    """The script failed, or gave no usable score."""


class RunOutOfMemory(RunCrashed):
    """The script needed more memory than there is, or than it may use."""


class RunTimedOut(RunFailed):
    """The script was still running, or training, at its limit."""


class ScoreRefused(RunFailed):
    """The model that the script handed in gets no score."""


class RunAborted(AutoresearchError):
    """A run has to be ended now: it is too late, or breaks the protocol."""


class RunPruned(AutoresearchError):
    """A run was ended early, because its loss is too far above the incumbent's."""


class ExportError(AutoresearchError):
    """A model cannot be exported; the message says what to change in it."""


class OperatorForbidden(AutoresearchError):
    """The operator is not on the list, or not with these arguments."""


class ModelRefused(AutoresearchError):
    """A sealed model gets no score."""


class ScorerOutOfMemory(AutoresearchError):
    """The accelerator has no memory left to score a model in."""


class ScorerUnavailable(AutoresearchError):
    """The scorer can score nothing."""


class ProtocolError(AutoresearchError):
    """The other end of a channel does not keep to the protocol."""


class FileRefused(AutoresearchError):
    """A file is not read, because it is no regular file, too large or unreadable."""


class ProposalRefused(AutoresearchError):
    """A proposal is not run."""


class NoAnswer(AutoresearchError):
    """An agent has nothing to propose this time, or no usable answer; *usage* is what that has cost.

    The next agent is asked instead. Without one, the trial is refused for this reason.
    """

    def __init__(self, reason: str, *, usage: Any = None) -> None:
        super().__init__(reason)
        self.usage = usage


class AgentUnavailable(NoAnswer):
    """An agent answers no more in this session: its key is refused, or its program is missing."""


class BudgetExhausted(AgentUnavailable):
    """An agent has used up its budget. This is no failure."""


class AllAgentsUnavailable(AutoresearchError):
    """No agent answers any more."""


class ToolError(AutoresearchError):
    """A model used a tool wrongly; the message tells the model what to do instead."""

    length = 4000


class SessionStopped(KeyboardInterrupt):
    """A signal or a hook ends the session, as Ctrl-C does: no handler of ordinary errors may catch it."""


class LoopFailed(AutoresearchError):
    """The loop cannot go on; every decided trial is stored."""

    length = 1000


class AssertionFailure(AutoresearchError):
    """What a test of the experiment asserts does not hold; *lines* are the figures."""

    length = 1000

    def __init__(self, headline: str, *lines: str) -> None:
        super().__init__(headline)
        self.lines = lines
