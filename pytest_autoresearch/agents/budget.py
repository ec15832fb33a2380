"""The costs of a campaign's proposals, and their limit."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pytest_autoresearch.errors import BudgetExhausted
from pytest_autoresearch.records.proposal import Usage
from pytest_autoresearch.system.signals import deferred

if TYPE_CHECKING:
    from pytest_autoresearch.agents.briefing import Briefing
    from pytest_autoresearch.campaign.costs import CostTotal


class Budget:
    """All that was paid for answers, whatever became of them.

    A payment counts from :meth:`pay` on, in every thread. It is stored by :meth:`record`, on the main thread,
    where git runs. The cost of an answer that no trial has used is unattributed: the next trial takes it.
    """

    def __init__(self) -> None:
        self.unattributed = Usage()
        self._lock = threading.Lock()
        self._before: float | None = None  # US dollars that the campaign had cost when this session began
        self._paid = 0.0  # US dollars, in this session
        self._unrecorded = Usage()
        self._total: CostTotal | None = None

    def open(self, total: CostTotal, unattributed: Usage) -> None:
        """Store payments in *total*; an earlier session left *unattributed* to the next trial."""
        self._total = total
        self.unattributed += unattributed
        self._paid += unattributed.cost

    def pay(self, usage: Usage) -> None:
        """Count the cost of an answer; any thread may call this."""
        with self._lock:
            self._paid += usage.cost
            self._unrecorded += usage

    def record(self) -> None:
        """Store what was paid since the last time. Call it on the main thread.

        Raises:
            StorageError: it cannot be stored now; the next call tries it again.
        """
        if self._total is None or (self._unrecorded == Usage() and self._total.is_stored):
            return
        with deferred():  # an interrupt must not lose what is in neither of them
            with self._lock:
                usage, self._unrecorded = self._unrecorded, Usage()
            self._total.add(usage)

    def spent(self, trials: float) -> float:
        """Return the US dollars paid so far, of which the *trials* that are stored hold some."""
        with self._lock:
            if self._before is None:
                self._before = trials
            return max(trials, self._before + self._paid)


def check_budget(briefing: Briefing, more: float = 0.0) -> None:
    """Raise BudgetExhausted if the campaign, with *more* dollars than the briefing says, is at its limit."""
    cost = briefing.cost + more
    if briefing.max_cost is not None and cost >= briefing.max_cost:
        raise BudgetExhausted(f"proposals have cost {cost:.2f} of {briefing.max_cost:.2f} US dollars")


def stated_usage(document: Mapping[str, Any], calls: object, cost: object = 0.0) -> Usage:
    """Return what a message of Anthropic's API, or a result of Claude Code, states; else zeros."""
    tokens = document.get("usage")
    tokens = tokens if isinstance(tokens, dict) else {}
    return Usage(
        calls=_count(calls),
        input_tokens=_count(tokens.get("input_tokens")),
        cache_write_tokens=_count(tokens.get("cache_creation_input_tokens")),
        cache_read_tokens=_count(tokens.get("cache_read_input_tokens")),
        output_tokens=_count(tokens.get("output_tokens")),
        cost=float(cost) if isinstance(cost, int | float) and 0 <= cost < math.inf else 0.0,
    )


def _count(value: object) -> int:
    return value if type(value) is int and value >= 0 else 0
