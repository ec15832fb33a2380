"""What the editable files of an experiment do together."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import PurePosixPath

from pytest_autoresearch.errors import ProposalRefused
from pytest_autoresearch.records.spec import ExperimentSpec
from pytest_autoresearch.source import canonical, size, validation
from pytest_autoresearch.source.validation import LARGEST
from pytest_autoresearch.text import quoted


def digest(files: Mapping[str, str]) -> str:
    """Return a digest that two versions, path and text of each file, share only if they do the same.

    A Python file counts by :func:`pytest_autoresearch.source.canonical.digest`, any other file by its text.
    """
    known = {path: canonical.digest(text) if path.endswith(".py") else text for path, text in files.items()}
    return hashlib.sha256(repr(sorted(known.items())).encode()).hexdigest()


def code_size(files: Mapping[str, str]) -> int:
    """Return the size of all Python files together, in tokens; see :func:`size.code_size`."""
    return sum(size.code_size(text) for path, text in files.items() if path.endswith(".py"))


def checked(
    proposed: Mapping[str, str], incumbent: Mapping[str, str], spec: ExperimentSpec, device: str, fixed: str
) -> dict[str, str]:
    """Return the files of a version that is worth a run: *incumbent* with the *proposed* files in it.

    Raises:
        ProposalRefused: a file may not be changed or is not valid, or the incumbent does the same.
    """
    for path in sorted(proposed):
        if not spec.is_editable(path):
            raise ProposalRefused(f"{quoted(path)} may not be changed")
    files = {**incumbent, **proposed}
    if files == incumbent:
        raise ProposalRefused("nothing was changed")
    for path, text in proposed.items():
        if path.endswith(".py") and text != incumbent.get(path):
            validation.check(text, incumbent.get(path, ""), device, fixed)
    if alike := equivalent_up_to(incumbent, files):
        raise ProposalRefused(f"no experiment: {alike} changed")
    return files


def equivalent_up_to(old: Mapping[str, str], new: Mapping[str, str]) -> str | None:
    """Return in a phrase what alone differs between two versions that do the same; None if they do not.

    For example ``only names and seeds``, as :func:`canonical.equivalent_up_to` says of one file.
    """
    phrases = []
    for path in {**old, **new}:
        if old.get(path) != new.get(path):
            if not path.endswith(".py") or path not in old or path not in new:
                return None
            if (phrase := canonical.equivalent_up_to(old[path], new[path])) is None:
                return None
            phrases.append(phrase)
    return " and ".join(dict.fromkeys(phrases)) or None


def is_storable(files: Mapping[str, str]) -> bool:
    """Return whether git can store *files* as they are: plain paths, UTF-8, and none too large."""
    try:
        return all(_is_plain(path) and len(text.encode()) <= LARGEST for path, text in files.items())
    except UnicodeEncodeError:
        return False


def _is_plain(path: str) -> bool:
    parts = PurePosixPath(path).parts
    named = {part.casefold() for part in parts}
    return (
        bool(path) and "/".join(parts) == path and path.isprintable() and not named & {"..", ".git", "git~1"}
    )
