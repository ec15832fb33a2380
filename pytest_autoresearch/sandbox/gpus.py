"""The GPUs of this machine: which device nodes a run gets. One run uses one GPU, and does not see another.

Not run on a GPU: the tests make up the files that the drivers show.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from pytest_autoresearch.system.text import single_line

ROOT = Path("/")
# NVIDIA's; Jetson's; AMD's and others'; WSL2's, whose libraries lie in /usr/lib/wsl.
NODES = ("nvidia*", "nvhost*", "nvmap", "nvgpu", "kfd", "dri", "dxg")
OF_ONE_GPU = re.compile(r"nvidia\d+")  # the others of NVIDIA's nodes are the driver's
SIGNS = ("nvidia[0-9]*", "kfd", "dxg")  # nodes that are there only with a GPU that computes
# What the libraries of a GPU look up. On NixOS the driver's own libraries are behind /run/opengl-driver.
LOOKED_UP = (
    "/etc/OpenCL",
    "/run/opengl-driver",
    "/sys/bus/pci",
    "/sys/class/drm",
    "/sys/class/kfd",
    "/sys/devices",
    "/sys/module",
)
VISIBLE = "CUDA_VISIBLE_DEVICES"
HIDDEN = ("", "-1")  # values that hide all of them


def nodes(environment: Mapping[str, str], root: Path = ROOT) -> list[Path]:
    """Return the device nodes for a run: of several NVIDIA GPUs those of one.

    That one is the first of CUDA_VISIBLE_DEVICES, an index in the order of the PCI bus or a UUID, or else
    GPU 0. In its sandbox a run can open no other, even if it sets the variable itself. Where the files of the
    driver do not say which node belongs to it, as of a MIG device, all are returned. So are all of AMD's.
    There is none for a run that computes on the CPU, whose clock would not count what a GPU does.

    Args:
        environment: the run's.
        root: where /dev and /proc are.
    """
    if environment.get("AUTORESEARCH_DEVICE") == "cpu":
        return []
    found = {path for pattern in NODES for path in (root / "dev").glob(pattern)}
    every = {path for path in found if OF_ONE_GPU.fullmatch(path.name)}
    if every:  # through which CUDA does not compute, and others of its GPUs could be used
        found = {path for path in found if path.name != "dri"}
    return sorted(found - every | _chosen(every, environment.get(VISIBLE, "0"), root))


def seen_among(devices: Collection[Path], environment: Mapping[str, str]) -> dict[str, str]:
    """Return what CUDA_VISIBLE_DEVICES has to be where there are no other nodes than *devices*, if it is set.

    The only GPU that is left has the index 0, whatever its index is outside. The name of a MIG device stays.
    """
    asked = environment.get(VISIBLE)
    gpus = sum(OF_ONE_GPU.fullmatch(path.name) is not None for path in devices)
    return {VISIBLE: "0"} if asked and not asked.startswith("MIG-") and gpus == 1 else {}


def unused(reason: str, environment: Mapping[str, str], root: Path = ROOT) -> str | None:
    """Return a line about a GPU that torch cannot use, None if there is no GPU for it.

    Args:
        reason: torch's own.
        environment: of this process, in which the user may hide GPUs.
        root: where /dev and /proc are.
    """
    there = sorted(path for pattern in SIGNS for path in (root / "dev").glob(pattern))
    if not there or environment.get(VISIBLE, "0").strip() in HIDDEN:
        return None
    node = Path("/") / there[0].relative_to(root)
    relief = "install a build of torch for it, or update its driver"
    return f"a GPU is there ({node}) and torch cannot use it ({single_line(reason)}): {relief}"


def _chosen(every: Collection[Path], visible: str, root: Path) -> set[Path]:
    """Return those of the NVIDIA nodes that belong to the first GPU that is *visible*."""
    known = [(uuid, node) for uuid, node in _known(root) if node in every]
    first = visible.partition(",")[0].strip()
    uuid = first.removeprefix("MIG-").partition("/")[0]  # which may be shortened
    if first.isdecimal():
        found = {node for _, node in known[int(first) :][:1]}
    elif uuid.startswith("GPU-"):
        found = {node for whole, node in known if whole.startswith(uuid)}
    else:  # CUDA takes what it does not know for none
        return set(every) if first.startswith("MIG-") else set()
    return found if len(known) == len(every) else set(every)


def _known(root: Path) -> list[tuple[str, Path]]:
    """Return the UUID and the device node of each NVIDIA GPU, in the order of the PCI bus."""
    folder = root / "proc/driver/nvidia/gpus"
    found = []
    for path in sorted(folder.glob("*/information"), key=_address):
        values = dict(re.findall(r"^(.+?):\s*(.*?)\s*$", path.read_text(), re.MULTILINE))
        if "Device Minor" in values:
            found.append((values.get("GPU UUID", ""), root / "dev" / f"nvidia{values['Device Minor']}"))
    return found


def _address(path: Path) -> list[int]:
    """Return the address on the PCI bus that the folder of *path* is named by, for sorting."""
    return [int(part, 16) for part in re.findall("[0-9a-fA-F]+", path.parent.name)]
