"""What the user asked for: read once, from options and ini."""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

import pytest

from pytest_autoresearch.errors import SandboxUnavailable

if TYPE_CHECKING:
    from pytest_autoresearch.sandbox.launch import Enforcer

TAG = r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}"
RESEARCH_ONLY = ("trials", "hours", "tag", "agent", "max-cost")
SANDBOXES: dict[Enforcer, str] = {
    "bwrap": "sandbox: bwrap, a run sees its own folder, and no network",
    "landlock": "sandbox: landlock, a run sees its own folder, and no network",
    "none": "sandbox: NONE! A run can read and change whatever you can, the validation data too",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """The options and ini values of one pytest session."""

    script: Path
    """The experiment, an absolute path."""
    metric: str
    direction: Literal["minimize", "maximize"]
    time_budget: float | None
    """Seconds of training a run may use; None leaves it to ``prepare.py``."""
    research: bool
    """Whether ``--autoresearch`` was given."""
    agents: tuple[str, ...]
    """The agents as they are asked for; none is one of the project's own or, without one, the tuner."""
    max_cost: float | None
    """US dollars that proposals may cost together; None is no limit."""
    agent_timeout: float
    """Seconds that an agent may take for an answer."""
    agent_sandbox: str
    """What keeps a command-line agent in: ``none``, or as for runs."""
    prices: tuple[str, ...]
    """What models cost, beside what is known: lines of a model, and dollars for a million tokens."""
    claude_effort: str
    """How hard Claude thinks; ``none`` leaves it out of the request."""
    claude_cache: bool
    """Whether what stays the same is marked for the model's cache."""
    trials: int | None
    """Stop after so many trials; None is never."""
    hours: float | None
    """Start no trial after so many hours; None is never."""
    tag: str | None
    """The campaign; None takes the branch's, or today's."""
    replay: tuple[str, int] | None
    """The tag and the number of a trial to measure again."""
    asked: frozenset[str]
    """Which of the items ``baseline``, ``candidate`` and ``replay`` the command line names."""
    planning: bool
    """Whether pytest only shows what it would run."""
    enforcer: Enforcer
    """What keeps runs from everything else."""
    confidence: float | None
    """How probable an improvement has to be; None leaves it to the judge."""
    prune: bool
    """Whether hopeless runs end early."""
    token_price: float
    """What a token of Python costs, as a share of the score."""
    memory_soft_limit: float | None
    """MiB that a run should not use more than; None is half as much again as the start uses."""
    memory_limit: float | None
    """MiB beyond which a run is ended; None is no limit."""
    give_up_after: int | None
    """Trials in a row without a score that end the loop; None is never."""
    keep_logs: int | None
    """Of how many trials, the latest, what they printed is kept; None is all."""

    @classmethod
    def of(cls, config: pytest.Config) -> Self:
        """Read *config*.

        Raises:
            pytest.UsageError: a value, or a combination of options, makes no sense.
        """
        direction = config.getini("autoresearch_direction")
        if direction not in ("minimize", "maximize"):
            msg = f"autoresearch_direction is 'minimize' or 'maximize', not {direction!r}"
            raise pytest.UsageError(msg)
        script = Path(os.path.normpath(config.rootpath / config.getini("autoresearch_experiment")))
        option = config.getoption
        research = option("autoresearch") and not (option("help") or option("version"))
        told = option("help") or option("version")
        replay = None if told else option("autoresearch_replay")
        if research or replay:
            asked = frozenset({"baseline" if research else "replay"})
        else:
            asked = _asked(config, script)
        settings = cls(
            script=script,
            metric=config.getini("autoresearch_metric"),
            direction=direction,
            time_budget=config.getoption("autoresearch_time_budget"),
            research=research,
            agents=tuple(option("autoresearch_agent") or ()),
            max_cost=option("autoresearch_max_cost"),
            agent_timeout=_number(config, "autoresearch_agent_timeout") or math.inf,
            agent_sandbox=config.getini("autoresearch_agent_sandbox"),
            prices=tuple(config.getini("autoresearch_prices")),
            claude_effort=config.getini("autoresearch_claude_effort"),
            claude_cache=config.getini("autoresearch_claude_cache"),
            trials=config.getoption("autoresearch_trials"),
            hours=config.getoption("autoresearch_hours"),
            tag=config.getoption("autoresearch_tag"),
            replay=replay,
            asked=asked,
            planning=any(option(name, False) for name in ("collectonly", "setupplan", "setuponly")),
            enforcer=_enforcer(option("autoresearch_sandbox")) if asked else "none",
            confidence=option("autoresearch_confidence"),
            prune=option("autoresearch_prune"),
            token_price=_number(config, "autoresearch_token_price", least=0.0) or 0.0,
            memory_soft_limit=_number(config, "autoresearch_memory_soft_limit"),
            memory_limit=_number(config, "autoresearch_memory_limit"),
            give_up_after=_whole(config, "autoresearch_give_up_after", "never", least=1),
            keep_logs=_whole(config, "autoresearch_keep_logs", "all", least=0),
        )
        settings._check(config)
        return settings

    def header(self) -> list[str]:
        """Return the lines at the top of a session that runs the experiment."""
        goal = {"minimize": "lower", "maximize": "higher"}[self.direction]
        lines = [f"experiment: {self.script.parent.name}/{self.script.name}, {self.metric}, {goal} is better"]
        return [*lines, SANDBOXES[self.enforcer]]

    def names(self, path: Path) -> bool:
        """Tell whether *path* is the experiment, by whatever links it is reached."""
        return path.name == self.script.name and path.resolve() == self.script.resolve()

    def _check(self, config: pytest.Config) -> None:
        if self.asked and (config.getoption("dist", "no") != "no" or hasattr(config, "workerinput")):
            msg = "an experiment needs the machine to itself: run it without -n (or with -n0)"
            raise pytest.UsageError(msg)
        if self.research and self.replay:
            msg = "--autoresearch-replay measures a trial of the past: give it without --autoresearch"
            raise pytest.UsageError(msg)
        own = {(place, item) for place in _places(config, self.script) for item in ("", "baseline")}
        others = [path.name for path, item in _paths(config) if (path, item) not in own]
        if self.replay and others:
            msg = f"--autoresearch-replay runs {self.script.name} alone: drop {', '.join(others)}"
            raise pytest.UsageError(msg)
        if not self.research:
            for option in RESEARCH_ONLY:
                if config.getoption(f"autoresearch_{option.replace('-', '_')}") is not None:
                    msg = f"--autoresearch-{option} needs --autoresearch"
                    raise pytest.UsageError(msg)
            return
        if not self.script.is_file():
            msg = f"there is no experiment at {self.script}: set autoresearch_experiment in the ini file"
            raise pytest.UsageError(msg)
        if others:
            msg = f"--autoresearch runs {self.script.name} alone: drop {', '.join(others)}"
            raise pytest.UsageError(msg)
        if config.getoption("lf", False) or config.getoption("failedfirst", False):
            msg = "--autoresearch starts from the baseline: drop --lf and --ff"
            raise pytest.UsageError(msg)


KEY = pytest.StashKey[Settings]()


def add_options(parser: pytest.Parser) -> None:
    """Declare every option and ini value; :meth:`Settings.of` is the only reader."""
    group = parser.getgroup("autoresearch", "experiments as tests")
    group.addoption(
        "--autoresearch",
        action="store_true",
        help="let an agent improve the experiment: propose, measure, judge, commit or drop, until stopped",
    )
    group.addoption(
        "--autoresearch-agent",
        action="append",
        metavar="NAME",
        help="who proposes: tuner, claude[:MODEL], hybrid[:NAME] or the command line of a coding agent; of "
        "several, by commas or by repeating the option, the next is asked where one has no answer "
        "(default: the hook in conftest.py, else the tuner)",
    )
    for name, metavar, kind, text in (
        ("trials", "N", _count, "stop after N trials (default: never); with 0 only measure and claim"),
        ("hours", "H", _positive, "start no trial after H hours"),
        ("tag", "TAG", _tag, "the campaign, on branch autoresearch/TAG; continued if it exists"),
        ("time-budget", "SECONDS", _positive, "seconds of training a run may use"),
        ("max-cost", "USD", _positive, "ask no agent that costs money once proposals have cost so much"),
    ):
        group.addoption(f"--autoresearch-{name}", type=kind, metavar=metavar, help=text)
    group.addoption(
        "--autoresearch-replay",
        type=_trial,
        metavar="TAG/NUMBER",
        help="measure a trial of the past again, a dropped one too",
    )
    group.addoption(
        "--autoresearch-sandbox",
        metavar="NAME",
        choices=["auto", "bwrap", "landlock", "none"],
        default="auto",
        help="what keeps a run from everything else (default: auto, the best that the machine has)",
    )
    group.addoption(
        "--autoresearch-confidence",
        type=_confidence,
        metavar="P",
        help="how probable an improvement has to be for a keep (default: 0.4; 0.95 is strict)",
    )
    group.addoption(
        "--autoresearch-prune",
        action="store_true",
        help="end a run whose loss is hopelessly above the incumbent's at the same share of the budget",
    )
    parser.addini("autoresearch_experiment", "the script under test", default="experiment/train.py")
    parser.addini("autoresearch_metric", "the name of the score that the script prints", default="val_bpb")
    parser.addini("autoresearch_direction", "minimize or maximize", default="minimize")
    for name, text, default in (
        ("token_price", "what a token of Python costs, as a share of the score; 0 for nothing", "0.000005"),
        ("memory_soft_limit", "MB that a run should stay below; auto: 1.5 times what the start uses", "auto"),
        ("memory_limit", "MB beyond which a run is ended", "none"),
        ("give_up_after", "trials in a row without a score that end the loop, or never", "10"),
        ("keep_logs", "of how many trials, the latest, what they printed is kept; or all", "all"),
        ("agent_timeout", "seconds that an agent may take for an answer", "1200"),
        ("agent_sandbox", "what keeps a command-line agent in: none, auto, bwrap or landlock", "none"),
        ("claude_effort", "how hard Claude thinks: low, medium, high, xhigh, max or none of them", "medium"),
    ):
        parser.addini(f"autoresearch_{name}", text, default=default)
    parser.addini("autoresearch_claude_cache", "mark what stays the same for the cache", "bool", default=True)
    parser.addini(
        "autoresearch_prices",
        "what models cost: MODEL INPUT OUTPUT [CACHE_WRITE CACHE_READ], dollars for a million tokens",
        "linelist",
        default=[],
    )


def _enforcer(asked: str) -> Enforcer:
    from pytest_autoresearch.errors import StorageError
    from pytest_autoresearch.sandbox import launch

    try:
        return launch.choose(asked)
    except StorageError as error:
        pytest.exit(str(error), returncode=pytest.ExitCode.TESTS_FAILED)
    except SandboxUnavailable as error:
        raise pytest.UsageError(f"--autoresearch-sandbox={asked}: {error}") from error


def _count(text: str) -> int:
    if not text.isdecimal():
        msg = f"{text!r} is not a number of trials"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def _confidence(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < 1:
        msg = f"{text!r} is not a probability between 0 and 1"
        raise argparse.ArgumentTypeError(msg)
    return number


def _number(config: pytest.Config, name: str, least: float = sys.float_info.min) -> float | None:
    """Return an ini value as a number of at least *least*, None if it is left to this program."""
    text = config.getini(name)
    try:
        number = None if text in ("auto", "none") else float(text)
    except ValueError:
        number = math.nan
    if number is not None and not least <= number < math.inf:
        kind = "a positive number" if least else "a number from 0 on"
        raise pytest.UsageError(f"{name} is {kind}, not {text!r}")
    return number


def _whole(config: pytest.Config, name: str, without: str, *, least: int) -> int | None:
    """Return an ini value as a whole number of at least *least*, None if it is the word *without*."""
    text = config.getini(name)
    if text == without:
        return None
    if not text.isdecimal() or int(text) < least:
        raise pytest.UsageError(f"{name} is a whole number from {least} on or {without!r}, not {text!r}")
    return int(text)


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        msg = f"{text!r} is not a positive number"
        raise argparse.ArgumentTypeError(msg)
    return number


def _tag(text: str) -> str:
    # A tag becomes one component of a ref and of a file name, and git's rules for those are strict.
    if not re.fullmatch(TAG, text):
        msg = f"{text!r} is not a tag: use letters, digits, '-' and '_', at most 64"
        raise argparse.ArgumentTypeError(msg)
    return text


def _trial(text: str) -> tuple[str, int]:
    tag, _, number = text.rpartition("/")
    if not re.fullmatch(TAG, tag) or not re.fullmatch(r"[0-9]{1,9}", number):
        msg = f"{text!r} is no trial: give its tag and its number, mar5/0007"
        raise argparse.ArgumentTypeError(msg)
    return tag, int(number)


def _asked(config: pytest.Config, script: Path) -> frozenset[str]:
    """Which items are named by -k, -m or a path: no other experiment runs, so none trains by accident."""
    paths, places = _paths(config), _places(config, script)
    within = {script.resolve(), *script.resolve().parents}
    if not script.is_file() or (paths and not any(path in within for path, _ in paths)):
        return frozenset()
    expressions = f"{config.getoption('keyword')} {config.getoption('markexpr')}"
    asked = {
        name
        for name in ("baseline", "candidate")
        if re.search(rf"(?<!\bnot )\b({name}|experiment)\b", expressions)
    }
    asked.update(item or "candidate" for path, item in paths if path in places)
    return frozenset(asked)


def _places(config: pytest.Config, script: Path) -> list[Path]:
    """What names the experiment on the command line: its path, and its folder if that is its own."""
    script = script.resolve()
    return [script] if script.parent == config.rootpath.resolve() else [script, script.parent]


def _paths(config: pytest.Config) -> list[tuple[Path, str]]:
    """The paths on the command line, each with the item that stands behind its first ``::``."""
    if config.args_source is not pytest.Config.ArgsSource.ARGS:
        return []
    parts = [argument.partition("::") for argument in config.args]
    return [((config.invocation_params.dir / path).resolve(), item) for path, _, item in parts]
