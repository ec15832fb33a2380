"""What answers of agents have cost, whatever became of the trials that they were for."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable

from pytest_autoresearch.campaign.git import Repository
from pytest_autoresearch.records.proposal import Usage
from pytest_autoresearch.system.signals import deferred


class CostTotal:
    """The sum of all that a campaign has paid for, in a ref of its own.

    A trial's commit holds what its proposal has cost, but not before its verdict: the sum is written when an
    answer comes. What it is ahead of the trials is owed, and goes to the next trial.
    """

    def __init__(self, repository: Repository, ref: str) -> None:
        """Read the sum at *ref*, a full name.

        Raises:
            ValueError: it is none.
        """
        self._repository, self._ref = repository, ref
        self._lock = threading.Lock()  # answers come from a thread as well
        self._blob = repository.refs(ref).get(ref)
        try:
            text = "{}" if self._blob is None else repository.text(self._blob, ref)
            self.paid = Usage(**json.loads(text))
        except TypeError as error:
            raise ValueError(error) from error
        if not self.paid.is_sound:
            raise ValueError(f"{self.paid} cannot be")

    def owed(self, trials: Iterable[Usage]) -> Usage:
        """Return what was paid and is in none of the *trials*."""
        held = Usage()
        for usage in trials:
            held += usage
        pairs = zip(self.paid.counts, held.counts, strict=True)
        # Rounded, for sums of the same dollars in another order differ by a hair.
        return Usage(*(max(round(paid - known, 9), 0) for paid, known in pairs))

    def pay(self, usage: Usage) -> None:
        """Add what an answer has cost; on return it is stored."""
        if usage == Usage():
            return
        with self._lock, deferred():
            self.paid += usage
            blob = self._repository.store(json.dumps(self.paid.to_json()).encode())
            self._repository.move({self._ref: (self._blob, blob)})
            self._blob = blob
