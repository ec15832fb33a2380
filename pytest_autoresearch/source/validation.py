"""A proposed change, checked without running it."""

from __future__ import annotations

import os
import stat
import warnings
from pathlib import Path

from pytest_autoresearch.errors import ProposalRefused
from pytest_autoresearch.source import constants
from pytest_autoresearch.system.text import quoted, single_line

LARGEST = 256 * 1024
"""The size of a script beyond which it is refused, in bytes."""


def read(path: Path) -> str:
    """Return the text of a script that an agent may have written.

    Raises:
        Refused: it is a link, or no regular file, or has other names, or is too large or no UTF-8.
    """
    try:
        # Without waiting for whoever writes to a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ProposalRefused(f"{path.name} cannot be read: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            raise ProposalRefused(f"{path.name} is not a file of its own: no link, pipe or device is read")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(LARGEST + 1)
    finally:
        os.close(descriptor)
    if len(data) > LARGEST:
        raise ProposalRefused(f"{path.name} has more than {LARGEST} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ProposalRefused(f"{path.name} is not UTF-8 text: {error}") from error


def check(source: str, incumbent: str, device: str, fixed: str) -> None:
    """Raise :class:`Refused` if the proposed script *source* is not worth a run.

    *incumbent* is the script that it would replace, *device* (``cuda`` or ``cpu``) where it would
    run, *fixed* the text of ``prepare.py``. It must be UTF-8 without NUL, of at most
    :data:`LARGEST` bytes, compile, differ from the incumbent, and break no module-level assert that
    can be evaluated.
    """
    _check_compiles(_encoded(source))
    if source == incumbent:
        msg = "nothing was changed"
        raise ProposalRefused(msg)
    if broken := constants.broken_assert(source, device, fixed):
        msg = f"{quoted(broken)} does not hold"
        raise ProposalRefused(msg)


def _encoded(source: str) -> bytes:
    try:
        encoded = source.encode()
    except UnicodeEncodeError as error:
        line = source.count("\n", 0, error.start) + 1
        msg = f"line {line}: not encodable as UTF-8"
        raise ProposalRefused(msg) from error
    if len(encoded) > LARGEST:
        msg = f"{len(encoded)} bytes, at most {LARGEST} are allowed"
        raise ProposalRefused(msg)
    if b"\0" in encoded:
        line = encoded.count(b"\n", 0, encoded.index(b"\0")) + 1
        msg = f"line {line}: a NUL byte"
        raise ProposalRefused(msg)
    return encoded


def _check_compiles(encoded: bytes) -> None:
    with warnings.catch_warnings():
        # A run shows them; here they would be errors wherever pytest is told to make them so.
        warnings.simplefilter("ignore")
        try:
            # Bytes, as Python reads the file: a declaration of another encoding counts.
            compile(encoded, "train.py", "exec", dont_inherit=True)
        except SyntaxError as error:
            where = f"line {error.lineno}: " if error.lineno else ""
            msg = f"{where}{single_line(error.msg)}"
            raise ProposalRefused(msg) from error
        except (RecursionError, MemoryError) as error:
            msg = "nested too deeply to compile"
            raise ProposalRefused(msg) from error
        except ValueError as error:
            msg = f"does not compile: {single_line(str(error))}"
            raise ProposalRefused(msg) from error
