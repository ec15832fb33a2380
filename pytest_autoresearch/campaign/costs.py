"""The total cost of a campaign's proposals, stored apart from its trials."""

from __future__ import annotations

import json
from collections.abc import Iterable

from pytest_autoresearch.campaign.git import Repository
from pytest_autoresearch.campaign.refs import CampaignRefs
from pytest_autoresearch.errors import RepositoryError
from pytest_autoresearch.records.proposal import Usage
from pytest_autoresearch.system.signals import deferred


class CostTotal:
    """The sum of all payments of a campaign, in a ref of its own.

    A trial's commit holds the cost of its proposal, but only after its verdict. The total is stored when an
    answer is paid. What it exceeds the trials by is unattributed, and goes to the next trial.
    """

    def __init__(self, repository: Repository, refs: CampaignRefs) -> None:
        """Read the total; raise RepositoryError if the ref leads to something else."""
        self._repository, self._ref = repository, refs.costs
        self.is_stored = True
        """Whether the ref holds the total: not after an error of the disk."""
        [self._blob] = repository.git.ids(self._ref)
        try:
            self.total = Usage.from_json(repository.text(self._ref) or "{}")
        except (TypeError, ValueError) as error:
            relief = f"delete it with 'git update-ref -d {self._ref}'"
            raise RepositoryError(f"{self._ref} is no sum of costs ({error})", hint=relief) from error

    def unattributed(self, trials: Iterable[Usage]) -> Usage:
        """Return what was paid and is in none of the *trials*."""
        pairs = zip(self.total.counts, sum(trials, Usage()).counts, strict=True)
        # Rounded, for sums of the same dollars in another order differ by a hair.
        return Usage(*(max(round(paid - known, 9), 0) for paid, known in pairs))

    def add(self, usage: Usage) -> None:
        """Add a payment; on return it is stored. If that fails, the next call stores it too."""
        with deferred():
            self.total += usage
            self.is_stored = False
            [blob] = self._repository.store(json.dumps(self.total.to_json()).encode())
            self._repository.move({self._ref: (self._blob, blob)})
            self._blob, self.is_stored = blob, True
