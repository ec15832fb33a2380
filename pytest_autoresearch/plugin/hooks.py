"""Every pytest hook of the plugin, each a few lines; no logic lives here."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from pytest_autoresearch import settings
from pytest_autoresearch.plugin import hookspecs

if TYPE_CHECKING:
    from pytest_autoresearch.records.trial import Verdict

# How pytest shows what an item says of itself: a letter, and a colour.
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
    settings.add_options(parser)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    pluginmanager.add_hookspecs(hookspecs)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "experiment: a timed run of the experiment (set by pytest-autoresearch)"
    )
    config.stash[settings.KEY] = chosen = settings.Settings.of(config)
    if chosen.research or chosen.replay is not None:
        from pytest_autoresearch.errors import RepositoryError, StorageError

        try:
            _configure_replay(config, chosen) if chosen.replay else _configure_research(config, chosen)
        except RepositoryError as error:
            raise pytest.UsageError(str(error)) from error
        except StorageError as error:
            pytest.exit(str(error), returncode=pytest.ExitCode.TESTS_FAILED)
    if chosen.asked and not chosen.research:
        # A test file that cannot be imported is no reason not to measure; the exit code tells of it.
        config.option.continue_on_collection_errors = True
    if chosen.asked and config.getoption("verbose", None) == 0:  # no such option under -p no:terminal
        config.option.verbose = 1  # a line an item, with its figures; -q still gives a letter each


def _configure_research(config: pytest.Config, chosen: settings.Settings) -> None:
    from pytest_autoresearch.agents import registry
    from pytest_autoresearch.plugin.session import ResearchSession

    panel = registry.register(chosen, config.pluginmanager)
    config.pluginmanager.register(ResearchSession(config, chosen, panel), "autoresearch-research")
    config.args = [f"{chosen.script}::baseline"]


def _configure_replay(config: pytest.Config, chosen: settings.Settings) -> None:
    from pytest_autoresearch.plugin.replay import STORED_TRIAL, StoredTrial

    config.stash[STORED_TRIAL] = StoredTrial.of(chosen)
    config.args = [f"{chosen.script}::replay"]


def pytest_report_header(config: pytest.Config) -> list[str]:
    chosen = config.stash[settings.KEY]
    return chosen.header() if chosen.asked else []


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(
    file_path: Path, parent: pytest.Collector
) -> Generator[None, list[pytest.Collector], list[pytest.Collector]]:
    collectors = yield
    if parent.config.stash[settings.KEY].names(file_path):
        from pytest_autoresearch.plugin.items import ExperimentFile

        # In place of whatever else collects it: pytest's own collectors import the file.
        return [ExperimentFile.from_parent(parent, path=file_path)]
    return collectors


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    chosen = config.stash[settings.KEY]
    idle = [item for item in items if item.name.split("[")[0] not in chosen.asked and chosen.names(item.path)]
    if idle:
        config.hook.pytest_deselected(items=idle)
        items[:] = [item for item in items if item not in idle]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    chosen = session.config.stash[settings.KEY]
    mine = chosen.asked and any(chosen.names(item.path) for item in session.items)
    if chosen.planning or chosen.research or not mine:  # research opens its own
        return (yield)
    from pytest_autoresearch.plugin.preparing import opened_experiment
    from pytest_autoresearch.system.signals import stoppable

    revision = "HEAD"
    if chosen.replay:
        from pytest_autoresearch.plugin.replay import STORED_TRIAL

        revision = session.config.stash[STORED_TRIAL].entry.commit
    with stoppable(), opened_experiment(session, chosen, revision):
        return (yield)


@pytest.hookimpl(tryfirst=True, optionalhook=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> bool | None:
    # pytest-timeout says how long; the run's own reader holds the clock, so that the run is what ends.
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
