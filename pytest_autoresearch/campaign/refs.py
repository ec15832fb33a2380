"""The names of a campaign's refs.

::

    refs/heads/autoresearch/<tag>             the branch: the header, then every kept trial
    refs/autoresearch/<tag>/0000              the header: what the campaign started with
    refs/autoresearch/<tag>/0001 and up       the trials
    refs/autoresearch/<tag>/claim             the last claim
    refs/autoresearch/<tag>/costs/total       what agents have cost
    refs/autoresearch/<tag>/log/0001 and up   the output of the trials' runs
"""

from __future__ import annotations

import dataclasses
import re

from pytest_autoresearch.errors import RepositoryError

NAMESPACE = "refs/autoresearch"
BRANCHES = "refs/heads/autoresearch"


@dataclasses.dataclass(frozen=True, slots=True)
class CampaignRefs:
    """The refs of the campaign *tag*; the tag ``*`` stands for every campaign in patterns."""

    tag: str

    @property
    def root(self) -> str:
        """The name that all refs but the branch lie below; no ref has this name itself."""
        return f"{NAMESPACE}/{self.tag}"

    @property
    def branch(self) -> str:
        """The short name of the branch."""
        return f"autoresearch/{self.tag}"

    @property
    def head(self) -> str:
        """The full name of the branch."""
        return f"{BRANCHES}/{self.tag}"

    @property
    def header(self) -> str:
        """The commit that the campaign started with."""
        return self.trial(0)

    @property
    def claim(self) -> str:
        """The commit of the last claim."""
        return f"{self.root}/claim"

    @property
    def costs(self) -> str:
        """The blob with the sum of all costs."""
        return f"{self.root}/costs/total"

    @property
    def commits(self) -> str:
        """The pattern of the header, the trials and the claim."""
        return f"{self.root}/*"

    @property
    def numbered(self) -> str:
        """The pattern of the header and the trials."""
        return f"{self.root}/[0-9]*"

    @property
    def logs(self) -> str:
        """The pattern of the logs."""
        return f"{self.root}/log/*"

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
