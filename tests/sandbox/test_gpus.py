"""Which GPU a run gets, with made-up files of NVIDIA's driver and without a GPU."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_autoresearch.sandbox import gpus, launch
from pytest_autoresearch.sandbox.policy import Enforcer, Policy
from tests.enforcers import VARIANTS, usable
from tests.project import Project

# By address on the PCI bus: the number of the node, and the UUID.
CARDS = {
    "0000:65:00.0": (1, "GPU-11111111-aaaa-bbbb-cccc-dddddddddddd"),
    "0000:3b:00.0": (2, "GPU-22222222-aaaa-bbbb-cccc-dddddddddddd"),
    "10000:01:00.0": (0, "GPU-33333333-aaaa-bbbb-cccc-dddddddddddd"),
}
INFORMATION = """\
Model: \t\t NVIDIA H100 80GB HBM3
IRQ:   \t\t 52
GPU UUID: \t {uuid}
Bus Type: \t PCIe
Bus Location: \t {address}
Device Minor: \t {minor}
GPU Excluded:\t No
"""
DRIVER = ["nvidia-caps", "nvidia-modeset", "nvidia-uvm", "nvidia-uvm-tools", "nvidiactl"]


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """Make up a machine with three NVIDIA GPUs, of which the second on the bus has the node nvidia1."""
    return made_up(tmp_path / "machine")


def made_up(root: Path) -> Path:
    """Make up the machine in the folder *root*."""
    (root / "dev" / "nvidia-caps").mkdir(parents=True)
    for name in [*DRIVER[1:], *(f"nvidia{minor}" for minor, _ in CARDS.values()), "nvme0", "null"]:
        (root / "dev" / name).touch()
    for address, (minor, uuid) in CARDS.items():
        information = root / "proc/driver/nvidia/gpus" / address / "information"
        information.parent.mkdir(parents=True)
        information.write_text(INFORMATION.format(uuid=uuid, address=address, minor=minor))
    return root


def chosen(machine: Path, visible: str | None) -> list[str]:
    """Return the GPUs whose nodes a run gets, which always gets those of the driver."""
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    names = [path.name for path in gpus.nodes(environment, machine)]
    assert [name for name in names if not name[-1].isdigit()] == DRIVER
    return [name for name in names if name[-1].isdigit()]


@pytest.mark.parametrize(
    ("visible", "nodes"),
    [
        (None, ["nvidia2"]),
        ("0", ["nvidia2"]),
        ("1", ["nvidia1"]),
        ("2,0", ["nvidia0"]),
        (" 1 , 2", ["nvidia1"]),
        ("3", []),
        ("", []),
        ("-1", []),
        ("none", []),
        ("NoDevFiles", []),
        ("GPU-44444444", []),
        ("GPU-33333333-aaaa-bbbb-cccc-dddddddddddd,GPU-11111111", ["nvidia0"]),
        ("GPU-1111", ["nvidia1"]),
        ("MIG-GPU-11111111-aaaa-bbbb-cccc-dddddddddddd/7/0", ["nvidia1"]),
        ("MIG-3e1ce3ff-aaaa-bbbb-cccc-dddddddddddd", ["nvidia0", "nvidia1", "nvidia2"]),
    ],
)
def test_a_run_gets_the_first_gpu_that_is_visible(
    visible: str | None, nodes: list[str], machine: Path
) -> None:
    assert chosen(machine, visible) == nodes


def test_no_other_way_leads_to_the_gpus_that_were_not_chosen(machine: Path) -> None:
    (machine / "dev" / "dri").mkdir()
    assert chosen(machine, "0") == ["nvidia2"]
    assert machine / "dev" / "dri" not in gpus.nodes({}, machine)


def test_an_experiment_on_the_cpu_gets_no_node_of_any_gpu(machine: Path) -> None:
    (machine / "dev" / "dri").mkdir()
    assert gpus.nodes({"AUTORESEARCH_DEVICE": "cpu"}, machine) == []


def test_a_gpu_without_a_node_does_not_count(machine: Path) -> None:
    (machine / "dev" / "nvidia2").unlink()  # as in a container that was given the others
    assert chosen(machine, "0") == ["nvidia1"]
    assert chosen(machine, None) == ["nvidia1"]


def test_a_run_gets_all_gpus_if_the_driver_does_not_tell_them_apart(machine: Path) -> None:
    (machine / "dev" / "nvidia7").touch()
    assert chosen(machine, "1") == ["nvidia0", "nvidia1", "nvidia2", "nvidia7"]


def test_nodes_of_other_vendors_are_found(tmp_path: Path) -> None:
    names = ["dri", "dxg", "kfd", "nvgpu", "nvhost-ctrl", "nvmap"]
    for name in [*names, "nvram", "null"]:
        (tmp_path / "dev" / name).mkdir(parents=True)
    assert [path.name for path in gpus.nodes({}, tmp_path)] == names


@pytest.fixture(params=VARIANTS)
def enforcer(request: pytest.FixtureRequest) -> Iterator[Enforcer]:
    with usable(request.param) as name:
        yield name


LOOK = """
import json, os, sys
def opens(name):
    try:
        os.close(os.open(f"{sys.argv[1]}/dev/{name}", os.O_RDWR))
    except OSError:
        return False
    return True
print(json.dumps([[n for n in ("nvidia0", "nvidia1", "nvidia2", "nvidiactl") if opens(n)],
                  os.environ.get("CUDA_VISIBLE_DEVICES")]))
"""


@pytest.mark.parametrize(
    ("visible", "inside"),
    [
        ({}, [["nvidia2", "nvidiactl"], None]),
        ({"CUDA_VISIBLE_DEVICES": "1,2"}, [["nvidia1", "nvidiactl"], "0"]),
        ({"CUDA_VISIBLE_DEVICES": "GPU-3333"}, [["nvidia0", "nvidiactl"], "0"]),
        ({"CUDA_VISIBLE_DEVICES": ""}, [["nvidiactl"], ""]),
    ],
)
def test_no_other_gpu_exists_for_a_run(
    visible: dict[str, str],
    inside: list[object],
    enforcer: Enforcer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = made_up(tmp_path / "machine")
    (tmp_path / "run").mkdir()
    monkeypatch.setattr(gpus, "nodes", functools.partial(gpus.nodes, root=machine))
    command = [sys.executable, "-c", LOOK, str(machine)]
    with launch.start(command, Policy(tmp_path / "run"), enforcer, visible) as run:
        assert json.loads(run.output.read()) == inside


def test_the_name_of_a_mig_device_stays(machine: Path) -> None:
    devices = [machine / "dev" / "nvidia0"]
    assert gpus.renumbered(devices, {"CUDA_VISIBLE_DEVICES": "MIG-3e1ce3ff"}) == {}


def test_a_gpu_that_torch_cannot_use_is_reported(machine: Path, tmp_path: Path) -> None:
    reason = "Torch not compiled with CUDA enabled"
    line = gpus.unused(reason, {}, machine)
    assert line is not None
    assert line.startswith(f"a GPU is there (/dev/nvidia0) and torch cannot use it ({reason}): install ")
    assert gpus.unused(reason, {}, tmp_path / "another") is None
    assert gpus.unused(reason, {"CUDA_VISIBLE_DEVICES": ""}, machine) is None


def test_the_user_sees_that_a_gpu_is_not_used(project: Project) -> None:
    machine = made_up(project.path / ".git" / "machine")
    prepare = project.script.with_name("prepare.py")
    prepare.write_text(prepare.read_text() + '    print("no_gpu: no such driver")\n')
    project.write(
        conftest_py=f"""
        from pathlib import Path
        from pytest_autoresearch.sandbox import gpus
        gpus.unused.__defaults__ = (Path({str(machine)!r}),)
    """
    ).commit()
    session = project.research("--autoresearch-trials=0").exits(0)
    session.shows("a GPU is there (/dev/nvidia0) and torch cannot use it (no such driver): install a build")
    assert "no_gpu" not in project.records[0]["platform"]
