"""A cost is stored at once, and unattributed until a trial holds it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_autoresearch.campaign.costs import CostTotal
from pytest_autoresearch.campaign.git import Repository
from pytest_autoresearch.campaign.refs import CampaignRefs
from pytest_autoresearch.errors import RepositoryError
from pytest_autoresearch.records.proposal import Usage
from pytest_autoresearch.records.spec import ExperimentSpec
from tests.project import Project

REFS = CampaignRefs("t")


@pytest.fixture
def repository(project: Project) -> Repository:
    return Repository(ExperimentSpec(project.script.parent))


def test_the_sum_outlives_who_wrote_it(repository: Repository) -> None:
    costs = CostTotal(repository, REFS)
    costs.add(Usage(calls=1, cost=0.25))
    costs.add(Usage(calls=2, cost=0.5))
    again = CostTotal(repository, REFS)
    assert again.total == Usage(calls=3, cost=0.75)
    assert again.unattributed([Usage(calls=1, cost=0.25)]) == Usage(calls=2, cost=0.5)
    assert again.unattributed([again.total, again.total]) == Usage()


def test_the_same_dollars_in_another_order_are_no_debt(repository: Repository) -> None:
    costs = CostTotal(repository, REFS)
    for cost in (0.1, 0.2, 0.3):
        costs.add(Usage(cost=cost))
    assert costs.unattributed([Usage(cost=0.1), Usage(cost=0.2 + 0.3)]) == Usage()


def test_a_payment_that_fails_does_not_stop_the_next(repository: Repository, project: Project) -> None:
    costs = CostTotal(repository, REFS)
    costs.add(Usage(cost=1.0))
    lock = Path(project.path, ".git", f"{REFS.costs}.lock")
    lock.touch()
    with pytest.raises(RepositoryError):
        costs.add(Usage(cost=2.0))
    lock.unlink()
    costs.add(Usage(cost=4.0))
    assert CostTotal(repository, REFS).total == Usage(cost=7.0)


@pytest.mark.parametrize("text", ["[]", "x", '{"cost": -1}', '{"cost": "much"}', '{"price": 1}'])
def test_what_is_no_sum_is_refused(repository: Repository, text: str) -> None:
    repository.move({REFS.costs: (None, *repository.store(text.encode()))})
    with pytest.raises(
        RepositoryError, match=r"^refs/autoresearch/t/costs/total is no sum of costs \(.+\): delete"
    ):
        CostTotal(repository, REFS)
