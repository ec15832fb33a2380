"""Which GPU device nodes a run gets. A run uses one GPU, and cannot see the others.

Tested with made-up driver files, not on a machine with several GPUs.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from pytest_autoresearch.text import single_line

ROOT = Path("/")  # of /dev and /proc
# Of NVIDIA, Jetson, AMD and others, and WSL2, whose libraries lie in /usr/lib/wsl.
NODES = ("nvidia*", "nvhost*", "nvmap", "nvgpu", "kfd", "dri", "dxg")
ONE_GPU = re.compile(r"nvidia\d+")  # NVIDIA's other nodes belong to the driver
COMPUTING = ("nvidia[0-9]*", "kfd", "dxg")  # nodes that exist only with a GPU that computes
# Read by the libraries of a GPU. On NixOS the driver's own libraries are behind /run/opengl-driver.
LIBRARY_FILES = (
    "/etc/OpenCL",
    "/run/opengl-driver",
    "/sys/bus/pci",
    "/sys/class/drm",
    "/sys/class/kfd",
    "/sys/devices",
    "/sys/module",
)
VISIBLE = "CUDA_VISIBLE_DEVICES"


def nodes(environment: Mapping[str, str], root: Path = ROOT) -> list[Path]:
    """Return the device nodes for a run; if there are several NVIDIA GPUs, only those of one.

    It is the first of CUDA_VISIBLE_DEVICES, an index in PCI bus order or a UUID, or else GPU 0. In a sandbox
    the run cannot open another one, whatever it sets the variable to. All nodes are returned where the
    driver's files do not tell which one belongs to the GPU, as for a MIG device, and for GPUs of AMD. A run
    that computes on the CPU gets none, because its clock would not count the work of a GPU.
    """
    if environment.get("AUTORESEARCH_DEVICE") == "cpu":
        return []
    found = {path for pattern in NODES for path in (root / "dev").glob(pattern)}
    every = {path for path in found if ONE_GPU.fullmatch(path.name)}
    if every:  # CUDA does not compute through dri, which leads to the other GPUs too
        found = {path for path in found if path.name != "dri"}
    return sorted(found - every | _chosen(every, environment.get(VISIBLE, "0"), root))


def renumbered(devices: Collection[Path], environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variable CUDA_VISIBLE_DEVICES for a run that has only *devices*, if it has to change.

    The only GPU left has index 0, whatever its index is outside. A MIG device keeps its name.
    """
    asked = environment.get(VISIBLE)
    gpus = sum(ONE_GPU.fullmatch(path.name) is not None for path in devices)
    return {VISIBLE: "0"} if asked and not asked.startswith("MIG-") and gpus == 1 else {}


def unused(reason: str, environment: Mapping[str, str], root: Path = ROOT) -> str | None:
    """Return a warning about a GPU that torch cannot use, for its own *reason*, or None.

    The user may hide GPUs in the *environment* of this process.
    """
    found = sorted(path for pattern in COMPUTING for path in (root / "dev").glob(pattern))
    if not found or environment.get(VISIBLE, "0").strip() in {"", "-1"}:
        return None
    node = Path("/") / found[0].relative_to(root)
    hint = "install a build of torch for it, or update its driver"
    return f"a GPU is there ({node}) and torch cannot use it ({single_line(reason)}): {hint}"


def _chosen(every: Collection[Path], visible: str, root: Path) -> set[Path]:
    """Return those of the NVIDIA nodes *every* that belong to the first *visible* GPU."""
    known = []  # in PCI bus order
    for path in sorted((root / "proc/driver/nvidia/gpus").glob("*/information"), key=_bus_address):
        values = dict(re.findall(r"^(.+?):\s*(.*?)\s*$", path.read_text(), re.MULTILINE))
        node = root / "dev" / f"nvidia{values.get('Device Minor')}"
        if node in every:
            known.append((values.get("GPU UUID", ""), node))
    first = visible.partition(",")[0].strip()
    uuid = first.removeprefix("MIG-").partition("/")[0]  # may be abbreviated
    if first.isdecimal():
        found = {node for _, node in known[int(first) :][:1]}
    elif uuid.startswith("GPU-"):
        found = {node for whole, node in known if whole.startswith(uuid)}
    else:  # CUDA takes unknown words to mean no GPU
        return set(every) if first.startswith("MIG-") else set()
    return found if len(known) == len(every) else set(every)


def _bus_address(path: Path) -> list[int]:
    """Return the PCI bus address that names the folder of *path*, as numbers for sorting."""
    return [int(part, 16) for part in re.findall("[0-9a-fA-F]+", path.parent.name)]
