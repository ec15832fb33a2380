"""Which items of the experiment a command line asks for: nothing trains by accident."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pytest_autoresearch.errors import UsageError

RESEARCH_ONLY = ("trials", "hours", "tag", "agent", "max-cost")


def asked(config: pytest.Config, script: Path) -> frozenset[str]:
    """Return the items ``baseline`` and ``candidate`` that -k, -m or a path names."""
    paths, places = _paths(config), _places(config, script)
    within = {script.resolve(), *script.resolve().parents}
    if not script.is_file() or (paths and not any(path in within for path, _ in paths)):
        return frozenset()
    expressions = f"{config.getoption('keyword')} {config.getoption('markexpr')}"
    found = {
        name
        for name in ("baseline", "candidate")
        if re.search(rf"(?<!\bnot )\b({name}|experiment)\b", expressions)
    }
    found.update(item or "candidate" for path, item in paths if path in places)
    return frozenset(found)


def check(
    config: pytest.Config, script: Path, asked: frozenset[str], *, research: bool, replay: object
) -> None:
    """Check that the options fit together.

    Raises:
        UsageError: they do not.
    """
    if asked and (config.getoption("dist", "no") != "no" or hasattr(config, "workerinput")):
        raise UsageError("an experiment needs the machine to itself", hint="run it without -n (or with -n0)")
    if research and replay:
        raise UsageError("--autoresearch-replay measures an earlier trial: give it without --autoresearch")
    for option in () if research else RESEARCH_ONLY:
        if config.getoption(f"autoresearch_{option.replace('-', '_')}") is not None:
            raise UsageError(f"--autoresearch-{option} needs --autoresearch")
    if research and not script.is_file():
        raise UsageError(f"there is no experiment at {script}: set autoresearch_experiment in the ini file")
    if (research or replay or asked) and script.suffix != ".py":
        hint = "name a .py file; it can start any other program"
        raise UsageError(f"autoresearch_experiment is {script.name}, which is no Python script", hint=hint)
    own = {(place, item) for place in _places(config, script) for item in ("", "baseline")}
    others = [path.name for path, item in _paths(config) if (path, item) not in own]
    if others and (research or replay):
        option = "--autoresearch" if research else "--autoresearch-replay"
        raise UsageError(f"{option} runs {script.name} alone: drop {', '.join(others)}")
    if research and (config.getoption("lf", False) or config.getoption("failedfirst", False)):
        raise UsageError("--autoresearch starts from the baseline: drop --lf and --ff")


def _places(config: pytest.Config, script: Path) -> list[Path]:
    """Return what names the experiment on the command line: its path, and its folder if that is its own."""
    script = script.resolve()
    return [script] if script.parent == config.rootpath.resolve() else [script, script.parent]


def _paths(config: pytest.Config) -> list[tuple[Path, str]]:
    """Return the paths on the command line, each with the item behind its first ``::``."""
    if config.args_source is not pytest.Config.ArgsSource.ARGS:
        return []
    parts = [argument.partition("::") for argument in config.args]
    return [((config.invocation_params.dir / path).resolve(), item) for path, _, item in parts]
