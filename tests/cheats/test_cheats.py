"""Every way to cheat that has been seen or thought of, tried for real; and the honest who look like cheats.

Each script in ``scripts`` is a ``train.py`` that cheats. All of them are the trials of one real campaign
(``pytest --autoresearch``) for each enforcer of the sandbox and each kind of user, over a miniature of the
experiment (``experiment``). None may be kept with a score that is not its own.

To add a cheat, write ``scripts/NAME.py``: its docstring says what it does and where it was seen, and
``hand_in_shared_model()`` or ``report(model)`` hands in a model. What is forbidden it tries with
``attempt(what, action)``, which says in the log how it ended; whatever it leaves has ``mark()`` in its name.
Then say in ``table.py`` how it has to end, and, if it works without a sandbox, that it does.
``pytest tests/cheats -k NAME`` runs that one alone.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.cheats.campaign import PLACE, Campaign, Combination, Trial, conduct, obstacle
from tests.cheats.table import (
    AFTER,
    CHEATS,
    HONEST,
    IN_FLOAT32,
    TRUE,
    WITHOUT_SANDBOX,
    in_turns,
    only_hands_in,
    path_of,
    takes_long,
    uses_torch,
)
from tests.project import Project

pytestmark = pytest.mark.slow
SANDBOXED = [
    Combination(enforcer, user) for enforcer in ("bwrap", "landlock") for user in ("own", "ordinary")
]
LONGEST = 50  # seconds that a cheat may take: less than the 60 s after which any run is ended
BARE = Combination("none", "own")


def combinations_of(name: str) -> list[Combination]:
    """Return where a script is tried: under both enforcers, one as each of the users.

    What a model is scored by, what a model or a message is refused for, and what the clock counts has nothing
    to do with either, and one combination is enough. AUTORESEARCH_TEST_EVERYWHERE=1 tries all in all four.
    """
    if os.environ.get("AUTORESEARCH_TEST_EVERYWHERE") or not all(map(is_possible, SANDBOXED)):
        return SANDBOXED
    bwrap, _, _, landlock_ordinary = SANDBOXED
    if uses_torch(name) or only_hands_in(name) or takes_long(name):
        return [(bwrap, landlock_ordinary)[len(name) % 2]]
    return [bwrap, landlock_ordinary]


def is_possible(combination: Combination) -> bool:
    return obstacle(combination) is None


def tried(names: list[str]) -> list[object]:
    """Return the parameters of a test of each script in each of its combinations."""
    return [
        pytest.param(combination, name, id=f"{combination}-{name}")
        for combination in SANDBOXED
        for name in names
        if combination in combinations_of(name)
    ]


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """Return a folder that every user may enter, which pytest's own are not."""
    path = Path(tempfile.mkdtemp(prefix="autoresearch-cheats-", dir=PLACE)).resolve()
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def scores(folder: Path) -> Mapping[str, float]:
    """Return the scores of the shared model and of the honest scripts, evaluated in process."""
    (folder / "data").mkdir()
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("reference.py"), *map(path_of, HONEST)],
        env={**os.environ, "AUTORESEARCH_CACHE": str(folder / "data"), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, float] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="session")
def campaigns(
    request: pytest.FixtureRequest, folder: Path, scores: Mapping[str, float]
) -> Iterator[Mapping[Combination, Future[Campaign]]]:
    """Return the campaigns that this session asks for; two run at a time."""
    assert scores
    wanted: dict[Combination, list[str]] = {}
    for item in request.session.items:
        parameters = getattr(item, "callspec", None)
        if item.path == Path(__file__) and parameters is not None:
            names = wanted.setdefault(parameters.params["combination"], [])
            names += [name for name in [parameters.params.get("name")] if name]
    with ThreadPoolExecutor(2) as pool:
        yield {
            combination: pool.submit(
                conduct,
                folder / f"{folder.name.removeprefix('autoresearch-')}-{combination}",
                folder / "data",
                combination,
                [path_of(name) for name in scheduled(names)],
            )
            for combination, names in wanted.items()
            if obstacle(combination) is None
        }
        pool.shutdown(cancel_futures=True)


def scheduled(names: list[str]) -> list[str]:
    """Return the scripts of one campaign, each once."""
    wanted = {*names, *(AFTER[name] for name in names if name in AFTER)}
    return in_turns([name for name in (*HONEST, *CHEATS) if name in wanted])


@pytest.fixture
def campaign(combination: Combination, campaigns: Mapping[Combination, Future[Campaign]]) -> Campaign:
    if reason := obstacle(combination):
        pytest.skip(reason)
    finished = campaigns[combination].result()
    if finished.code == 4 and f"--autoresearch-sandbox={combination.enforcer}: " in finished.screen:
        pytest.skip(finished.screen.strip().splitlines()[-1])  # the ordinary user may do less
    return finished


@pytest.mark.parametrize(("combination", "name"), tried(list(CHEATS)))
def test_a_cheat_gains_nothing(campaign: Campaign, name: str, scores: Mapping[str, float]) -> None:
    trial, expected = campaign.trial(name), CHEATS[name]
    said = f"{trial.verdict}: {trial.reason}\n{trial.log[-3000:]}"
    assert trial.verdict == expected.verdict, said
    assert expected.reason in trial.reason, said
    if expected.worse:
        assert trial.score is not None
        assert trial.score > 1.05 * scores["shared"], said
    else:
        true = pytest.approx(scores["shared"], rel=1e-6) if expected == TRUE else None
        assert trial.score == true, said
    assert not [what for what, how in trial.attempts.items() if not how.startswith("blocked")], said
    assert len(trial.attempts) >= attempts_in(name), said
    assert not trial.traces
    assert trial.seconds < LONGEST


def attempts_in(name: str) -> int:
    """Return how many attempts a script is sure to make."""
    return len(re.findall(r"^attempt\(", path_of(name).read_text(), re.MULTILINE))


@pytest.mark.parametrize(("combination", "name"), tried(HONEST))
def test_an_honest_script_is_scored_as_in_process(
    campaign: Campaign, name: str, scores: Mapping[str, float]
) -> None:
    trial = campaign.trial(name)
    assert trial.verdict in {"kept", "discarded"}, f"{trial.reason}\n{trial.log[-3000:]}"
    assert trial.score == pytest.approx(scores[name], rel=3e-3 if name in IN_FLOAT32 else 1e-5)
    assert not trial.traces


@pytest.mark.parametrize("combination", combinations_of("daemon"), ids=str)
def test_a_campaign_of_cheats_ends_as_any_other(campaign: Campaign) -> None:
    assert campaign.code == 0, campaign.screen
    assert "hidden: copies of held-out data, " in campaign.screen
    assert not campaign.changed
    assert not campaign.left
    assert not set("\x1b\x07\x9b\u202e").intersection(campaign.screen)


@pytest.mark.parametrize("combination", combinations_of("instructions_in_the_log"), ids=str)
def test_what_a_log_says_to_its_reader_stays_in_one_line(campaign: Campaign) -> None:
    if "instructions_in_the_log" not in campaign.trials:
        pytest.skip("it was not tried")
    reason = campaign.trial("instructions_in_the_log").reason
    assert reason.isprintable()
    assert "\\x1b[2J" in reason or "INSTRUCTIONS" in reason


@pytest.mark.parametrize(
    ("combination", "name"), [pytest.param(BARE, name, id=f"{BARE}-{name}") for name in WITHOUT_SANDBOX]
)
def test_it_would_work_without_a_sandbox(campaign: Campaign, name: str) -> None:
    trial: Trial = campaign.trial(name)
    worked = {what for what, how in trial.attempts.items() if how.startswith("SUCCEEDED")}
    assert worked >= WITHOUT_SANDBOX[name], trial.log


def test_a_script_that_is_a_link_is_not_read(project: Project) -> None:
    project.write(experiment__elsewhere_py="print('val_bpb: 0.1')").commit()
    project.research("--autoresearch-trials=0").exits(0)
    project.script.unlink()
    project.script.symlink_to("elsewhere.py")
    project.pytest("experiment/train.py").exits(1).shows("train.py cannot be read").hides("Traceback")
