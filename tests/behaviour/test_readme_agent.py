"""The agent that the README shows does what it says, word for word."""

from __future__ import annotations

import re
from pathlib import Path

from tests.project import Project

README = Path(__file__).parents[2] / "README.md"


def test_it_proposes_until_it_is_stopped(project: Project) -> None:
    chapter = README.read_text(encoding="utf-8").partition("\n### Your own agent\n")[2]
    match = re.search(r"```python\n(.*?)```", chapter, re.DOTALL)
    assert match is not None
    (project.path / "conftest.py").write_text(match[1])
    project.commit("Add the agent of the README")
    session = project.research("--autoresearch-trials=3").exits(0).shows("agent: the project's own")
    assert len(project.ledger()) == 3, session.screen
    for entry in project.ledger():
        assert entry["verdict"] in {"kept", "discarded", "refused"}
        assert re.fullmatch(r"LR [\d.]+ -> [\d.]+", entry["description"])
    assert {entry["verdict"] for entry in project.ledger()} & {"kept", "discarded"}
