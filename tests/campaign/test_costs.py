"""What was paid is written down at once, and owed until a trial holds it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_autoresearch.campaign.costs import CostTotal
from pytest_autoresearch.campaign.git import Repository
from pytest_autoresearch.errors import RepositoryError
from pytest_autoresearch.records.proposal import Usage
from tests.project import Project

REF = "refs/autoresearch/t/books/paid"


@pytest.fixture
def repository(project: Project) -> Repository:
    return Repository.of(project.script)


def test_the_sum_outlives_who_wrote_it(repository: Repository) -> None:
    books = CostTotal(repository, REF)
    books.pay(Usage(calls=1, cost=0.25))
    books.pay(Usage(calls=2, cost=0.5))
    again = CostTotal(repository, REF)
    assert again.paid == Usage(calls=3, cost=0.75)
    assert again.owed([Usage(calls=1, cost=0.25)]) == Usage(calls=2, cost=0.5)
    assert again.owed([again.paid, again.paid]) == Usage()


def test_the_same_dollars_in_another_order_are_no_debt(repository: Repository) -> None:
    books = CostTotal(repository, REF)
    for cost in (0.1, 0.2, 0.3):
        books.pay(Usage(cost=cost))
    assert books.owed([Usage(cost=0.1), Usage(cost=0.2 + 0.3)]) == Usage()


def test_a_payment_that_fails_does_not_stop_the_next(repository: Repository, project: Project) -> None:
    books = CostTotal(repository, REF)
    books.pay(Usage(cost=1.0))
    lock = Path(project.path, ".git", f"{REF}.lock")
    lock.touch()
    with pytest.raises(RepositoryError):
        books.pay(Usage(cost=2.0))
    lock.unlink()
    books.pay(Usage(cost=4.0))
    assert CostTotal(repository, REF).paid == Usage(cost=7.0)


@pytest.mark.parametrize("text", ["[]", "x", '{"cost": -1}', '{"cost": "much"}', '{"price": 1}'])
def test_what_is_no_sum_is_refused(repository: Repository, text: str) -> None:
    repository.move({REF: (None, repository.store(text.encode()))})
    with pytest.raises(ValueError, match=r"\S"):
        CostTotal(repository, REF)
