"""The enforcers of the sandbox, for its tests; Landlock also as on an older kernel."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from pytest_autoresearch.errors import SandboxUnavailable
from pytest_autoresearch.sandbox import enforcers, landlock
from pytest_autoresearch.sandbox.policy import Enforcer

VARIANTS = ("bwrap", "landlock", "landlock of Linux 6.2")


@contextlib.contextmanager
def usable(name: str) -> Iterator[Enforcer]:
    """Yield the enforcer of one of VARIANTS; inside the block Landlock has the abilities of its kernel only.

    Skips the test where the enforcer does not work.
    """
    with pytest.MonkeyPatch.context() as patch:
        if name.startswith("landlock of"):
            patch.setattr(landlock, "abi", lambda: landlock.OLDEST)
        try:
            yield enforcers.choose(name.partition(" ")[0])
        except SandboxUnavailable as reason:
            pytest.skip(str(reason))
