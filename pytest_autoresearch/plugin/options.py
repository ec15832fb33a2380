"""Options and ini values: declared here, and read here only."""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_autoresearch.agents.agent import AgentOptions
from pytest_autoresearch.errors import SandboxUnavailable, UsageError
from pytest_autoresearch.plugin import selection
from pytest_autoresearch.records.spec import ExperimentSpec
from pytest_autoresearch.settings import Settings

if TYPE_CHECKING:
    from pytest_autoresearch.sandbox.policy import Enforcer

TAG = r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}"  # one component of a ref and of a file name
SETTINGS = pytest.StashKey[Settings]()


def add_options(parser: pytest.Parser) -> None:
    """Declare every option and ini value."""
    group = parser.getgroup("autoresearch", "experiments as tests")
    group.addoption(
        "--autoresearch",
        action="store_true",
        help="let an agent improve the experiment: propose, run, judge, keep or discard, until stopped",
    )
    group.addoption(
        "--autoresearch-agent",
        action="append",
        metavar="NAME",
        help="who proposes: tuner, claude[:MODEL], hybrid[:NAME] or the command line of a coding agent; "
        "separate several with commas, the next one is asked when one has no answer (default: the hook in "
        "conftest.py, else the tuner)",
    )
    positive = _below(math.inf, "a positive number")
    probability = _below(1, "a probability between 0 and 1")
    kept = "the probability of an improvement that a keep requires (default: 0.4; 0.95 is strict)"
    for name, metavar, kind, text in (
        ("trials", "N", _count, "stop after N trials (default: no limit); 0 only measures and claims"),
        ("hours", "H", positive, "start no trial after H hours"),
        ("tag", "TAG", _tag, "the campaign, on branch autoresearch/TAG; it is continued if it exists"),
        ("time-budget", "SECONDS", positive, "seconds of training for each run"),
        ("max-cost", "USD", positive, "stop asking paid agents once proposals have cost this much"),
        ("replay", "TAG/NUMBER", _trial, "measure an earlier trial again"),
        ("confidence", "P", probability, kept),
    ):
        group.addoption(f"--autoresearch-{name}", type=kind, metavar=metavar, help=text)
    group.addoption(
        "--autoresearch-sandbox",
        metavar="NAME",
        choices=["auto", "bwrap", "landlock", "none"],
        default="auto",
        help="the sandbox of runs (default: auto, the best that this machine has)",
    )
    group.addoption(
        "--autoresearch-prune",
        action="store_true",
        help="end a run early when its loss is too far above the incumbent's at the same share of the budget",
    )
    for name, text, default in (
        ("experiment", "the script of the experiment", "experiment/train.py"),
        ("metric", "the name of the score that the script prints", "val_bpb"),
        ("direction", "minimize or maximize", "minimize"),
        (
            "token_price",
            "what a token of Python has to gain, as a share of the score; 0: nothing",
            "0.000005",
        ),
        ("memory_soft_limit", "MB that a run should stay below; auto: 1.5 times the start's memory", "auto"),
        ("memory_limit", "MB beyond which a run is ended", "none"),
        ("give_up_after", "stop after N consecutive trials without a score, or 'never'", "10"),
        ("keep_logs", "keep the output of the last N trials, or 'all'", "all"),
        ("agent_timeout", "seconds for one answer of an agent", "1200"),
        ("agent_sandbox", "the sandbox of command-line agents: none, auto, bwrap or landlock", "none"),
        ("claude_effort", "the effort of Claude's thinking: low, medium, high, xhigh, max or none", "medium"),
    ):
        parser.addini(f"autoresearch_{name}", text, default=default)
    cached = "mark the stable part of Claude's prompt for its cache"
    parser.addini("autoresearch_claude_cache", cached, "bool", default=True)
    prices = "prices of models: MODEL INPUT OUTPUT [CACHE_WRITE CACHE_READ], US dollars per million tokens"
    parser.addini("autoresearch_prices", prices, "linelist", default=[])


def read(config: pytest.Config) -> Settings:
    """Return what the user has asked for.

    Raises:
        UsageError: a value, or a combination of options, is invalid.
        StorageError: no sandbox can be tried, for nothing can be written.
    """
    option, ini, spec = config.getoption, config.getini, _spec(config)
    is_told = option("help") or option("version")
    research = option("autoresearch") and not is_told
    replay = None if is_told else option("autoresearch_replay")
    if research or replay:
        asked = frozenset({"baseline" if research else "replay"})
    else:
        asked = selection.asked(config, spec.path)
    selection.check(config, spec.path, asked, research=research, replay=replay)
    return Settings(
        spec=spec,
        agents=AgentOptions(
            script=spec.path,
            timeout=_number(config, "autoresearch_agent_timeout") or math.inf,
            sandbox=ini("autoresearch_agent_sandbox"),
            max_cost=option("autoresearch_max_cost"),
            prices=tuple(ini("autoresearch_prices")),
            effort=ini("autoresearch_claude_effort"),
            cache=ini("autoresearch_claude_cache"),
        ),
        agent_names=tuple(option("autoresearch_agent") or ()),
        asked=asked,
        research=research,
        replay=replay,
        planning=any(option(name, False) for name in ("collectonly", "setupplan", "setuponly")),
        tag=option("autoresearch_tag"),
        keep_logs=_whole(config, "autoresearch_keep_logs", "all", least=0),
        time_budget=option("autoresearch_time_budget"),
        memory_limit=_number(config, "autoresearch_memory_limit"),
        memory_soft_limit=_number(config, "autoresearch_memory_soft_limit"),
        confidence=option("autoresearch_confidence"),
        code_size_price=_number(config, "autoresearch_token_price", least=0.0) or 0.0,
        prune=option("autoresearch_prune"),
        trials=option("autoresearch_trials"),
        hours=option("autoresearch_hours"),
        give_up_after=_whole(config, "autoresearch_give_up_after", "never", least=1),
        enforcer=_enforcer(option("autoresearch_sandbox")) if asked else "none",  # last: it tries some
    )


def _spec(config: pytest.Config) -> ExperimentSpec:
    direction = config.getini("autoresearch_direction")
    if direction not in ("minimize", "maximize"):
        raise UsageError(f"autoresearch_direction is 'minimize' or 'maximize', not {direction!r}")
    script = Path(os.path.normpath(config.rootpath / config.getini("autoresearch_experiment")))
    return ExperimentSpec(
        folder=script.parent,
        script=script.name,
        command=("python", script.name),
        editable=(script.name,),
        metric=config.getini("autoresearch_metric"),
        direction=direction,
    )


def _enforcer(asked: str) -> Enforcer:
    from pytest_autoresearch.sandbox import enforcers

    try:
        return enforcers.choose(asked)
    except SandboxUnavailable as error:
        raise UsageError(f"--autoresearch-sandbox={asked}: {error}") from error


def _number(config: pytest.Config, name: str, least: float = sys.float_info.min) -> float | None:
    """Return an ini value as a number of at least *least*; None for ``auto`` and ``none``."""
    text = config.getini(name)
    try:
        number = None if text in ("auto", "none") else float(text)
    except ValueError:
        number = math.nan
    if number is not None and not least <= number < math.inf:
        kind = "a positive number" if least else "a number from 0 on"
        raise UsageError(f"{name} is {kind}, not {text!r}")
    return number


def _whole(config: pytest.Config, name: str, without: str, *, least: int) -> int | None:
    """Return an ini value as a whole number of at least *least*; None for the word *without*."""
    text = config.getini(name)
    if text == without:
        return None
    if not text.isdecimal() or int(text) < least:
        raise UsageError(f"{name} is a whole number from {least} on or {without!r}, not {text!r}")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of trials")
    return int(text)


def _below(most: float, what: str) -> Callable[[str], float]:
    """Return the type of an option whose value is between 0 and *most*; *what* is said of others."""

    def read(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not 0 < number < most:
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
        return number

    return read


def _tag(text: str) -> str:
    if not re.fullmatch(TAG, text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a tag: use letters, digits, '-' and '_', at most 64"
        )
    return text


def _trial(text: str) -> tuple[str, int]:
    tag, _, number = text.rpartition("/")
    if not re.fullmatch(TAG, tag) or not re.fullmatch(r"[0-9]{1,9}", number):
        raise argparse.ArgumentTypeError(f"{text!r} is no trial: give its tag and its number, mar5/0007")
    return tag, int(number)
