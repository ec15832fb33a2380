"""A run acts on no task outside itself: tests/reach.py makes every call that could."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

import psutil
import pytest

from pytest_autoresearch.sandbox import launch, system_calls
from pytest_autoresearch.sandbox.policy import Enforcer, Policy
from tests import reach
from tests.enforcers import VARIANTS, usable

LONGEST = 20.0  # seconds
REFUSALS = {"EPERM", "EACCES", "ESRCH", "ENOENT"}
SIBLING = "import threading, time; threading.Thread(target=time.sleep, args=(60,)).start(); print(flush=True)"


@pytest.fixture(params=VARIANTS)
def enforcer(request: pytest.FixtureRequest) -> Iterator[Enforcer]:
    with usable(request.param) as name:
        yield name


@dataclasses.dataclass(frozen=True)
class Target:
    """A process outside a run, its last thread, and its group."""

    process: int
    thread: int
    group: int

    @classmethod
    def of(cls, process: int) -> Self:
        last = max(int(thread.name) for thread in Path(f"/proc/{process}/task").iterdir())
        return cls(process, last, os.getpgid(process))

    def pinned_to(self) -> list[set[int]]:
        """Return the processors that both may run on."""
        return [os.sched_getaffinity(task) for task in (self.process, self.thread)]

    def pin_to(self, processors: list[set[int]]) -> None:
        """Have both run on what :meth:`pinned_to` has returned."""
        os.sched_setaffinity(self.process, processors[0])
        os.sched_setaffinity(self.thread, processors[1])


@contextlib.contextmanager
def this_process() -> Iterator[Target]:
    """Yield pytest itself, with a second thread."""
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    assert thread.native_id is not None
    try:
        yield Target(os.getpid(), thread.native_id, os.getpgrp())
    finally:
        over.set()
        thread.join()


@contextlib.contextmanager
def another_run(folder: Path, enforcer: Enforcer) -> Iterator[Target]:
    """Yield another run, such as the scorer."""
    folder.mkdir()
    command = [sys.executable, "-c", SIBLING]
    with launch.start(command, Policy(folder), enforcer, {}) as run:
        run.output.readline()
        yield Target.of(psutil.Process(run.supervisor.pid).children(recursive=True)[-1].pid)


def tried(
    targets: Mapping[str, Target | None], folder: Path, enforcer: Enforcer, *, agent: bool = False
) -> list[list[str]]:
    """Make every attempt at each target, where None is the supervisor; return the results."""
    folder.mkdir()
    existing = filter(system_calls.exists, system_calls.NUMBERS)
    facts = {
        "targets": {
            name: [0, 0, 0] if target is None else dataclasses.astuple(target)
            for name, target in targets.items()
        },
        "numbers": {name: system_calls.number(name) for name in existing},
    }
    script = Path(reach.__file__)
    command = [sys.executable, str(script), json.dumps(facts)]
    policy = Policy(folder, readable=(script,), agent=agent)
    with launch.start(command, policy, enforcer, {}) as run:
        output = run.output.read().decode()
        assert run.wait(LONGEST) == 0, output
    return [json.loads(line) for line in output.splitlines()]


@pytest.mark.parametrize("agent", [False, True])
def test_no_call_reaches_a_task_outside(enforcer: Enforcer, tmp_path: Path, *, agent: bool) -> None:
    with this_process() as pytest_itself, another_run(tmp_path / "scorer", enforcer) as scorer:
        targets = {"pytest": pytest_itself, "the scorer": scorer}
        before = [target.pinned_to() for target in targets.values()]
        # In a namespace its first process is in the place of the supervisor.
        supervisor = {} if enforcer == "bwrap" else {"the supervisor": None}
        try:
            results = tried({**targets, **supervisor}, tmp_path / "run", enforcer, agent=agent)
            assert [target.pinned_to() for target in targets.values()] == before
        finally:
            pytest_itself.pin_to(before[0])
    assert len(results) > 50 * len(targets)
    assert {result for name, _, result in results if name == reach.PIN} == {"done"}  # which it was not
    assert [each for each in results if each[0] != reach.PIN and each[2] not in REFUSALS] == []


def test_threads_can_be_pinned(enforcer: Enforcer, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    code = (
        "import torch; torch.set_num_threads(2); print(int((torch.ones(500, 500) @ torch.ones(500)).sum()))"
    )
    environment = {"OMP_PROC_BIND": "true", "OMP_PLACES": "cores", "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-c", code]
    with launch.start(command, Policy(tmp_path), enforcer, environment) as run:
        assert run.output.read() == b"250000\n"


def test_every_call_works_without_a_sandbox(tmp_path: Path) -> None:
    needs_more = {"ptrace", "perf_event_open", "get_robust_list", "kcmp", "migrate_pages", "move_pages"}
    needs_more |= {"process_vm_readv", "process_vm_writev", "prctl"}  # of the kernel, or of its settings
    with this_process() as pytest_itself:
        before = pytest_itself.pinned_to()
        try:
            results = tried({"pytest": pytest_itself}, tmp_path / "run", "none")
            assert pytest_itself.pinned_to() == [{min(processors)} for processors in before]
        finally:
            pytest_itself.pin_to(before)
    assert [each for each in results if each[0] not in needs_more and each[2] != "done"] == []
