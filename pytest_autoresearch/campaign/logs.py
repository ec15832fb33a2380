"""The output of a campaign's trials."""

from __future__ import annotations

import contextlib
from pathlib import Path

from pytest_autoresearch.campaign.git import Moves, Repository
from pytest_autoresearch.campaign.refs import CampaignRefs, padded
from pytest_autoresearch.system.files import writing
from pytest_autoresearch.system.log import excerpt


class Logs:
    """A file for each trial, and a ref to a blob with the beginning and the end of the file.

    The file grows while a run goes on, and is not in git. The ref is written together with the verdict.
    """

    def __init__(self, repository: Repository, refs: CampaignRefs, folder: Path, keep: int | None) -> None:
        """Read the refs; *keep* is the number of trials, the latest, whose logs are kept; None keeps all."""
        self._repository, self._refs, self._folder, self._keep = repository, refs, folder, keep
        stored = {refs.log_number_of(ref): blob for ref, blob in repository.refs(refs.logs).items()}
        self._stored = {number: blob for number, blob in stored.items() if number is not None}

    def path(self, number: int) -> Path:
        """Return the file of a trial."""
        return self._folder / f"{padded(number)}.log"

    def start(self, number: int) -> bool:
        """Remove stale logs, from trial *number* on; return whether a killed session had started it."""
        first = 0 if self._keep is None else number - self._keep
        killed = self.path(number).exists() and number not in self._stored
        with writing(self._folder):
            for file in self._folder.glob("*.log"):
                if file.stem.isdecimal() and not first <= int(file.stem) < number:
                    file.unlink(missing_ok=True)
        return killed

    def moves(self, number: int) -> Moves:
        """Return what happens to the refs together with a trial's verdict: its log is added, old ones go."""
        moves: dict[str, tuple[str | None, str | None]] = {
            self._refs.log(old): (self._stored[old], None) for old in self._outdated(number)
        }
        with writing(self.path(number)):
            text = b"" if self._keep == 0 else excerpt(self.path(number))
        if text:
            # Somebody may have deleted a trial's ref, to try it again, and not this one.
            [blob] = self._repository.store(text)
            moves[self._refs.log(number)] = (self._stored.get(number), blob)
        return moves

    def stored(self, number: int, moves: Moves) -> None:
        """Take note that the refs have moved so; remove the file that is not kept any more."""
        for old in self._outdated(number):
            del self._stored[old]
        if blob := moves.get(self._refs.log(number), (None, None))[1]:
            self._stored[number] = blob
        if self._keep is not None:
            with contextlib.suppress(OSError):
                self.path(number - self._keep).unlink()

    def _outdated(self, number: int) -> list[int]:
        return [] if self._keep is None else [old for old in self._stored if old <= number - self._keep]
