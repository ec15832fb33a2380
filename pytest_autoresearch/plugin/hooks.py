"""Every pytest hook of the plugin, each a few lines; no logic lives here."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from pytest_autoresearch.plugin import hookspecs, options
from pytest_autoresearch.plugin.translation import configuring, stopped_by_signals

if TYPE_CHECKING:
    from pytest_autoresearch.records.trial import Verdict
    from pytest_autoresearch.settings import Settings

# How pytest shows the outcome of an item: a letter, and a colour.
SHOWN: dict[Verdict | Literal["passed"], tuple[str, dict[str, bool]]] = {
    "passed": (".", {"green": True}),
    "kept": ("K", {"green": True, "bold": True}),
    "discarded": ("d", {"light": True}),
    "crashed": ("c", {"red": True}),
    "out of memory": ("m", {"red": True}),
    "timeout": ("t", {"yellow": True}),
    "refused": ("r", {"yellow": True}),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    options.add_options(parser)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    pluginmanager.add_hookspecs(hookspecs)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "experiment: a timed run of the experiment (set by pytest-autoresearch)"
    )
    with configuring():
        config.stash[options.SETTINGS] = settings = options.read(config)
        if settings.replay:
            _configure_replay(config, settings)
        elif settings.research:
            _configure_research(config, settings)
    if settings.asked and not settings.research:
        # A test file that cannot be imported is no reason not to measure; the exit code tells of it.
        config.option.continue_on_collection_errors = True
    if settings.asked and config.getoption("verbose", None) == 0:  # no such option under -p no:terminal
        config.option.verbose = 1  # a line an item, with its figures; -q still gives a letter each


def _configure_research(config: pytest.Config, settings: Settings) -> None:
    from pytest_autoresearch.plugin import agents
    from pytest_autoresearch.plugin.session import ResearchSession

    chain = agents.register(settings, config.pluginmanager)
    config.pluginmanager.register(ResearchSession(config, settings, chain), "autoresearch-research")
    config.args = [f"{settings.spec.path}::baseline"]


def _configure_replay(config: pytest.Config, settings: Settings) -> None:
    from pytest_autoresearch.campaign.git import Repository
    from pytest_autoresearch.campaign.history import StoredTrial
    from pytest_autoresearch.plugin.replay import STORED_TRIAL

    assert settings.replay is not None
    config.stash[STORED_TRIAL] = StoredTrial.load(Repository(settings.spec), *settings.replay)
    config.args = [f"{settings.spec.path}::replay"]


def pytest_report_header(config: pytest.Config) -> list[str]:
    settings = config.stash[options.SETTINGS]
    if not settings.asked:
        return []
    from pytest_autoresearch.plugin.preparing import header

    return header(settings)


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(
    file_path: Path, parent: pytest.Collector
) -> Generator[None, list[pytest.Collector], list[pytest.Collector]]:
    collectors = yield
    if parent.config.stash[options.SETTINGS].is_script(file_path):
        from pytest_autoresearch.plugin.collector import ExperimentFile

        # In place of whatever else collects it: pytest's own collectors import the file.
        return [ExperimentFile.from_parent(parent, path=file_path)]
    return collectors


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    settings = config.stash[options.SETTINGS]
    idle = [
        item
        for item in items
        if item.name.split("[")[0] not in settings.asked and settings.is_script(item.path)
    ]
    if idle:
        config.hook.pytest_deselected(items=idle)
        items[:] = [item for item in items if item not in idle]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    settings = session.config.stash[options.SETTINGS]
    is_ours = settings.asked and any(settings.is_script(item.path) for item in session.items)
    if settings.planning or settings.research or not is_ours:  # research opens its own
        return (yield)
    from pytest_autoresearch.plugin.preparing import opened_experiment

    revision = "HEAD"
    if settings.replay:
        from pytest_autoresearch.plugin.replay import STORED_TRIAL

        revision = session.config.stash[STORED_TRIAL].trial.commit
    with stopped_by_signals(), opened_experiment(session, settings, revision):
        return (yield)


@pytest.hookimpl(tryfirst=True, optionalhook=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> bool | None:
    # pytest-timeout says how long; the executor holds the clock, so that the run is what ends.
    if item.get_closest_marker("experiment") is None or not hasattr(item, "limit"):
        return None
    item.limit = settings.timeout
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if call.excinfo and hasattr(item, "explain"):  # pytest asks repr_failure about the call alone
        report.longrepr = item.explain(call.excinfo.value) or report.longrepr
    if call.when == "call" and (outcome := getattr(item, "autoresearch_outcome", None)):
        report.autoresearch = outcome  # type: ignore[attr-defined]  # for pytest_report_teststatus
        if outcome[0] not in ("passed", "kept"):
            # An expected failure, as xfail reports it: -x, --lf, JUnit and the exit code know what to do.
            # Its reason is empty, for pytest shows only what is left of one at the end of a line.
            report.outcome, report.wasxfail = "skipped", ""
    if call.when == "call" and (times := getattr(item, "autoresearch_times", None)):
        report.start, report.stop = times
        report.duration = report.stop - report.start
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_report_teststatus(
    report: pytest.TestReport,
) -> tuple[str, str, tuple[str, dict[str, bool]]] | None:
    if not (outcome := getattr(report, "autoresearch", None)):
        return None
    word, reason = outcome
    letter, markup = SHOWN[word]
    return word, letter, (f"{word.upper()} ({reason})", markup)
