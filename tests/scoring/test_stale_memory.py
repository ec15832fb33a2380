"""Memory that nobody wrote: a graph must not learn from it what an earlier row has left there."""

import subprocess
import sys

import pytest

from pytest_autoresearch.errors import OperatorForbidden
from pytest_autoresearch.scoring.arguments import Reference
from pytest_autoresearch.scoring.operators import check_arguments

# torch's circular padding by a negative number copies from what it has not written yet.
STALE = """
import ctypes
library = ctypes.CDLL(None)
library.mallopt(-4, 0), library.mallopt(-1, 2**31 - 1)  # as prepare.py does: freed memory is reused
import torch
from pytest_autoresearch.scoring import interpreter  # noqa: E402
torch.set_num_threads(1)
{strictly}
size = 1 << 16
zeros = torch.zeros(1, 1, 1, dtype=torch.int64).expand(1, 2, 2 * size)
found = []
for left in (7, 8):
    kept = [torch.full((1, 2, 3 * size), left) for _ in range(3)]
    del kept
    padded = torch.ops.aten.pad.default(zeros, [2 * size, -size], "circular")
    found.append(padded[:, :, :size].unique().tolist())
print(*found[0], *found[1])
"""


def found(strictly: str) -> list[int]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", STALE.format(strictly=strictly)],
        capture_output=True,
        text=True,
        check=True,
    )
    return [int(word) for word in done.stdout.split()]


@pytest.mark.skipif(sys.platform != "linux", reason="it is glibc that reuses memory like that")
def test_it_holds_what_was_left_there() -> None:
    assert any({7, 8}.issubset(found("")) for _ in range(8)), "where memory is taken from is a matter of luck"


@pytest.mark.parametrize(
    "strictly",
    [
        "interpreter.fill_memory()",
        "torch.use_deterministic_algorithms(True, warn_only=True)",
        "library.mallopt(interpreter.M_PERTURB, interpreter.FILLING)",
    ],
)
def test_it_is_filled_before_a_model_is_scored(strictly: str) -> None:
    first, second = found(strictly)
    assert first == second


@pytest.mark.parametrize("pads", [[4, -2], [-1, 0], [Reference(3), 0], Reference(3)])
def test_the_operator_that_reads_it_is_refused(pads: object) -> None:
    with pytest.raises(OperatorForbidden, match="circular padding by a negative number"):
        check_arguments("aten.pad.default", [Reference(0), pads, "circular"], {})
    check_arguments("aten.pad.default", [Reference(0), [4, 2], "circular"], {})
    check_arguments("aten.pad.default", [Reference(0), pads, "constant"], {})
