"""No trial is kept whose model was probed in a tenth of the rows alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pytest_autoresearch.plugin.items import ComparisonItem
from pytest_autoresearch.records.measurement import Measurement


class Compared(ComparisonItem):
    """A comparison without a session; its runs only tell whether they would have been probed thoroughly."""

    def __init__(self) -> None:
        self.code_size_change, self.runs, self.incumbent_runs = 0, [], []
        self.probed: list[tuple[str, bool]] = []

    def runtest(self) -> None:
        """Do nothing: the test compares."""

    def measure(self, source: str, *, seed: int, thorough: Any, **_: object) -> Measurement:
        self.probed.append((source, thorough(1.0)))
        return Measurement(1.0, seed, 1.0)


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        ("keep", [("x = 2", True), ("x = 1", False)]),  # which a run of the incumbent decides
        ("discard", [("x = 2", True), ("x = 1", False)]),  # nobody knows beforehand
    ],
)
def test_what_a_run_of_the_incumbent_may_have_kept_is_probed(
    last: str, expected: list[tuple[str, bool]]
) -> None:
    def judge(scores: list[float], again: list[float], _tokens: int) -> Any:
        action = "measure incumbent" if scores else "measure candidate"
        return SimpleNamespace(action=last if again else action)

    compared = object.__new__(Compared)
    Compared.__init__(compared)
    assert compared.compare("x = 2", "x = 1", judge).action == last
    assert compared.probed == expected


def test_what_is_discarded_at_once_is_not_probed() -> None:
    def judge(scores: list[float], _again: list[float], _tokens: int) -> Any:
        return SimpleNamespace(action="discard" if scores else "measure candidate")

    compared = object.__new__(Compared)
    Compared.__init__(compared)
    compared.compare("x = 2", "x = 1", judge)
    assert compared.probed == [("x = 2", False)]
