"""Checks of a proposed script that need no run."""

from __future__ import annotations

from pathlib import Path

from pytest_autoresearch.errors import FileRefused, ProposalRefused
from pytest_autoresearch.source import constants
from pytest_autoresearch.source.parse import quiet
from pytest_autoresearch.system.files import read_bounded
from pytest_autoresearch.text import quoted, single_line

LARGEST = 256 * 1024
"""The size of a script beyond which it is refused, in bytes."""


def read(path: Path) -> str:
    """Return the text of a script that an agent may have written.

    Raises:
        ProposalRefused: it is a link or no regular file, has other names, is too large, or is not UTF-8.
    """
    try:
        return b"".join(read_bounded(path, LARGEST, sole_name=True)).decode()
    except FileRefused as error:
        raise ProposalRefused(f"{path.name} {error}") from error
    except UnicodeDecodeError as error:
        raise ProposalRefused(f"{path.name} is not UTF-8 text: {error}") from error


def check(source: str, incumbent: str, device: str, fixed: str) -> None:
    """Refuse a proposed script *source* that is not worth a run.

    It must be UTF-8 without NUL, of at most :data:`LARGEST` bytes, compile, differ from the *incumbent*
    script, and break no module-level assert that can be evaluated on *device* (``cuda`` or ``cpu``) with
    *fixed*, the text of ``prepare.py``.

    Raises:
        ProposalRefused: it fails one of these checks.
    """
    _check_compiles(source)
    if source == incumbent:
        raise ProposalRefused("nothing was changed")
    if broken := constants.broken_assert(source, device, fixed):
        raise ProposalRefused(f"{quoted(broken)} does not hold")


def _check_compiles(source: str) -> None:
    try:
        encoded = source.encode()
    except UnicodeEncodeError as error:
        raise ProposalRefused(f"{_line(source, error.start)}: not encodable as UTF-8") from error
    if len(encoded) > LARGEST:
        raise ProposalRefused(f"{len(encoded)} bytes, at most {LARGEST} are allowed")
    if (position := source.find("\0")) >= 0:
        raise ProposalRefused(f"{_line(source, position)}: a NUL byte")
    try:
        with quiet():  # a run shows the warnings
            # Bytes, as Python reads the file: a declaration of another encoding counts.
            compile(encoded, "train.py", "exec", dont_inherit=True)
    except SyntaxError as error:
        where = f"line {error.lineno}: " if error.lineno else ""
        raise ProposalRefused(f"{where}{single_line(error.msg)}") from error
    except (RecursionError, MemoryError) as error:
        raise ProposalRefused("nested too deeply to compile") from error
    except ValueError as error:
        raise ProposalRefused(f"does not compile: {single_line(str(error))}") from error


def _line(source: str, position: int) -> str:
    number = source.count("\n", 0, position) + 1
    return f"line {number}"
