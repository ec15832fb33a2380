"""Who keeps a run in, for the tests of the sandbox: also as on a kernel that is older than this one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from pytest_autoresearch.errors import SandboxUnavailable
from pytest_autoresearch.sandbox import landlock, launch

KEEPERS = ("bwrap", "landlock", "landlock of Linux 6.2")


@contextlib.contextmanager
def keeper(name: str) -> Iterator[launch.Enforcer]:
    """Give the enforcer of one of KEEPERS; inside of the block Landlock can do no more than that kernel's.

    Skips the test where it does not work.
    """
    with pytest.MonkeyPatch.context() as patch:
        if name.startswith("landlock of"):
            patch.setattr(landlock, "abi", lambda: landlock.OLDEST)
        try:
            yield launch.choose(name.partition(" ")[0])
        except SandboxUnavailable as reason:
            pytest.skip(str(reason))
