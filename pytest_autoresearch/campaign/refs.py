"""The names of a campaign's refs, which docs/formats.md describes."""

from __future__ import annotations

import re

from pytest_autoresearch.errors import RepositoryError

NAMESPACE = "refs/autoresearch"
BRANCHES = "refs/heads/autoresearch"


class CampaignRefs:
    """The refs of the campaign *tag*; the tag ``*`` stands for every campaign in patterns."""

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self.branch = f"autoresearch/{tag}"
        """The short name of the branch."""
        self.head = f"{BRANCHES}/{tag}"
        """The full name of the branch."""
        self.root = f"{NAMESPACE}/{tag}"
        """The name that all refs but the branch lie below; no ref has this name itself."""
        self.header = self.trial(0)
        """The commit that the campaign started with."""
        self.claim = f"{self.root}/claim"
        """The commit of the last claim."""
        self.costs = f"{self.root}/costs/total"
        """The blob with the sum of all costs."""
        self.commits = f"{self.root}/*"
        """The pattern of the header, the trials and the claim."""
        self.logs = f"{self.root}/log/*"
        """The pattern of the logs."""

    def trial(self, number: int) -> str:
        """Return the ref of a trial."""
        return f"{self.root}/{padded(number)}"

    def log(self, number: int) -> str:
        """Return the ref of a trial's log, a blob."""
        return f"{self.root}/log/{padded(number)}"

    def number_of(self, ref: str) -> int:
        """Return the number of the trial that *ref* names, 0 for the header.

        Raises:
            RepositoryError: it names no trial of this campaign.
        """
        name = ref.removeprefix(f"{self.root}/")
        if not re.fullmatch(r"\d{4,9}", name):
            raise RepositoryError(f"{ref} is no trial", hint=f"delete it with 'git update-ref -d {ref}'")
        return int(name)

    def log_number_of(self, ref: str) -> int | None:
        """Return the number of the trial whose log *ref* is, None if it is no log."""
        name = ref.removeprefix(f"{self.root}/log/")
        return int(name) if re.fullmatch(r"\d{4,9}", name) else None


def padded(number: int) -> str:
    """Return a trial's number as refs and files spell it: ``0007``."""
    return f"{number:04d}"
