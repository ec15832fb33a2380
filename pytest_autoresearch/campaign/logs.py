"""What the trials of a campaign have printed."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path

from pytest_autoresearch.campaign.git import Repository
from pytest_autoresearch.system.files import writing
from pytest_autoresearch.system.log import excerpt


class Logs:
    """A file for each trial, and a ref to a blob with its beginning and its end.

    The file is there while a run goes on, and is not in git; the ref is written with the verdict, and travels
    with the trial's own.
    """

    def __init__(self, repository: Repository, refs: str, folder: Path, keep: int | None) -> None:
        """Look at what is there.

        Args:
            repository: where the refs are.
            refs: what their names begin with.
            folder: of the files.
            keep: of how many trials, the latest, the logs are wanted; None is all.
        """
        self._repository, self._refs, self._folder, self._keep = repository, refs, folder, keep
        self._stored = {
            int(number): blob
            for ref, blob in repository.refs(f"{refs}*").items()
            if re.fullmatch(r"\d{4,9}", number := ref.removeprefix(refs))
        }

    def path(self, number: int) -> Path:
        """Return the file of a trial."""
        return self._folder / f"{number:04d}.log"

    def start(self, number: int) -> bool:
        """Begin with trial *number*; tell whether it was begun before, and killed before its verdict.

        What there is of it, and of later ones whose refs somebody has deleted, is not the log of what comes.
        """
        first = 0 if self._keep is None else number - self._keep
        killed = self.path(number).exists() and number not in self._stored
        with writing(self._folder):
            for file in self._folder.glob("*.log"):
                if file.stem.isdecimal() and not first <= int(file.stem) < number:
                    file.unlink(missing_ok=True)
        return killed

    def moves(self, number: int) -> dict[str, tuple[str | None, str | None]]:
        """Return what happens to the refs together with a trial's verdict: its log's comes, older ones go."""
        moves: dict[str, tuple[str | None, str | None]] = {
            self._ref(old): (self._stored[old], None) for old in self._outdated(number)
        }
        with writing(self.path(number)):
            text = b"" if self._keep == 0 else excerpt(self.path(number))
        if text:
            # Somebody may have deleted a trial's ref, to try it again, and not this one.
            moves[self._ref(number)] = (self._stored.get(number), self._repository.store(text))
        return moves

    def stored(self, number: int, moves: Mapping[str, tuple[str | None, str | None]]) -> None:
        """Take note that the refs have moved so; remove the files that are not wanted any more."""
        for old in self._outdated(number):
            del self._stored[old]
        if blob := moves.get(self._ref(number), (None, None))[1]:
            self._stored[number] = blob
        if self._keep is not None:
            with contextlib.suppress(OSError):
                self.path(number - self._keep).unlink()

    def _ref(self, number: int) -> str:
        return f"{self._refs}{number:04d}"

    def _outdated(self, number: int) -> list[int]:
        return [] if self._keep is None else [old for old in self._stored if old <= number - self._keep]
