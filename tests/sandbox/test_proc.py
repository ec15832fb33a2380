"""In /proc a run may write the names of its own threads, without which CUDA does not start, and nothing else.

Written without NVIDIA's driver: the C library names another thread here, as the driver does when it starts.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_autoresearch.sandbox import launch
from pytest_autoresearch.sandbox.policy import Enforcer, Policy
from tests.enforcers import VARIANTS, usable

NAMING = """
import ctypes, os, subprocess, sys, threading
def named(name):
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    failed = ctypes.CDLL(None).pthread_setname_np(ctypes.c_void_p(thread.ident), name)
    with open(f"/proc/self/task/{thread.native_id}/comm") as comm:
        found = comm.read().strip()
    over.set()
    return [failed, found]
if len(sys.argv) == 1:
    print(named(b"cuda-1"), flush=True)
    subprocess.run([sys.executable, __file__, "child"], check=True)
else:
    print(named(b"cuda-2"), flush=True)
"""

# Opening a file to write to it does nothing by itself.
WALK = """
import json, os, subprocess, sys
child = subprocess.Popen(["sleep", "60"])
known = {*map(str, [os.getpid(), child.pid, os.getppid()]), *sys.argv[1:]}
found = []
for folder, folders, names in os.walk("/proc"):
    if folder == "/proc":  # to walk through all processes of a machine takes long
        folders[:] = [name for name in folders if not name.isdecimal() or name in known]
    for path in (f"{folder}/{name}" for name in names):
        try:
            if not os.path.islink(path):
                os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
                found.append(path)
        except OSError:
            pass
child.kill()
print(json.dumps([os.getpid(), found]))
"""


def may_make_a_network() -> bool:
    """Tell whether this process is root's, and has CAP_SYS_ADMIN."""
    capabilities = re.search(r"^CapEff:\s*(\w+)", Path("/proc/self/status").read_text(), re.MULTILINE)
    return os.geteuid() == 0 and capabilities is not None and bool(int(capabilities[1], 16) >> 21 & 1)


@pytest.fixture(params=VARIANTS)
def enforcer(request: pytest.FixtureRequest) -> Iterator[Enforcer]:
    with usable(request.param) as name:
        yield name


def output(script: str, folder: Path, enforcer: Enforcer, *arguments: str, agent: bool = False) -> str:
    (folder / "script.py").write_text(script)
    command = [sys.executable, "script.py", *arguments]
    with launch.start(command, Policy(folder, agent=agent), enforcer, {"PATH": "/bin"}) as run:
        said = run.output.read().decode()
        assert run.wait(60) == 0, said
    return said


def test_a_run_names_its_threads(enforcer: Enforcer, tmp_path: Path) -> None:
    itself, child = map(json.loads, output(NAMING, tmp_path, enforcer).replace("'", '"').splitlines())
    assert itself == [0, "cuda-1"]
    if enforcer == "bwrap":  # Landlock's rule is about one process
        assert child == [0, "cuda-2"]


def test_the_supervisor_keeps_the_folder_of_the_naming_rule_open(enforcer: Enforcer, tmp_path: Path) -> None:
    # The rule ends when the kernel forgets the folder: with /proc/sys/vm/drop_caches naming then failed.
    with launch.start(["sh", "-c", "echo; sleep 60"], Policy(tmp_path), enforcer, {}) as run:
        run.output.readline()
        supervisor = Path("/proc", str(run.supervisor.pid))
        [child] = (supervisor / "task" / supervisor.name / "children").read_text().split()
        held = {str(path.readlink()) for path in (supervisor / "fd").iterdir()}
        assert (f"/proc/{child}/task" in held) == (enforcer == "landlock")


def test_a_run_writes_to_nothing_in_proc_but_its_own(enforcer: Enforcer, tmp_path: Path) -> None:
    own, found = json.loads(output(WALK, tmp_path, enforcer, str(os.getpid())))
    assert f"/proc/{own}/task/{own}/comm" in found
    if enforcer == "bwrap":  # in whose namespace all processes are the run's
        others = [path for path in found if not path.split("/")[2].isdecimal()]
    else:
        others = [path for path in found if not path.startswith(f"/proc/{own}/task/")]
    assert others == []


def test_an_agent_writes_to_nothing_in_proc(enforcer: Enforcer, tmp_path: Path) -> None:
    assert json.loads(output(WALK, tmp_path, enforcer, str(os.getpid()), agent=True))[1] == []


@pytest.mark.skipif(not may_make_a_network(), reason="only root owns files there")
def test_a_run_of_root_sees_its_own_network_only(enforcer: Enforcer, tmp_path: Path) -> None:
    devices = output("print(open('/proc/self/net/dev').read())", tmp_path, enforcer).strip().splitlines()
    assert [line.split(":")[0].strip() for line in devices[2:]] == ["lo"]
