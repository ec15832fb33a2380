"""How git is called: in an environment of its own, one process a call, every failure an exception."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_autoresearch.errors import RepositoryError
from pytest_autoresearch.system.files import storage_error, writing
from pytest_autoresearch.text import single_line

if TYPE_CHECKING:
    import git

IDENTITY = ("pytest-autoresearch", "autoresearch@localhost")
QUIET = {
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "gc.auto": "0",
    "core.fsync": "all",  # a power cut may not leave a ref without its objects
    "core.filesRefLockTimeout": "3000",  # milliseconds; an editor's git holds a lock every now and then
    "i18n.commitEncoding": "UTF-8",
    "i18n.logOutputEncoding": "UTF-8",
}


class Git:
    """The ``git`` program in the working tree *root*, through GitPython's *program*, which stays as it is.

    Every method raises RepositoryError if git refuses, and StorageError if the disk is why.
    """

    def __init__(self, program: git.Git, root: Path) -> None:
        self._program = program
        self._root = root
        name, email = IDENTITY
        self._environment = {
            "GIT_AUTHOR_NAME": name,
            "GIT_AUTHOR_EMAIL": email,
            "GIT_COMMITTER_NAME": name,
            "GIT_COMMITTER_EMAIL": email,
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_OPTIONAL_LOCKS": "0",  # to look at the index does not write it
            "GIT_LITERAL_PATHSPECS": "1",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "LC_ALL": "C",
            **configuration(QUIET),
        }

    def call(
        self, command: str, *arguments: str, data: bytes = b"", environment: Mapping[str, str] | None = None
    ) -> str:
        """Return what git prints, without the newline at its end; raise an error if it fails."""
        output, _ = self.run(command, *arguments, data=data, environment=environment)
        return os.fsdecode(output).rstrip("\n")

    def run(
        self, command: str, *arguments: str, data: bytes = b"", environment: Mapping[str, str] | None = None
    ) -> tuple[bytes, str]:
        """Run git, with *data* as its input; return its output and complaints."""
        with writing(), tempfile.TemporaryFile() as stream:
            stream.write(data)
            stream.seek(0)
            # In a session of its own: Ctrl-C reaches everything in the terminal's, and git must finish.
            status, output, said = self._program.execute(
                ["git", command, *arguments],
                istream=stream,
                env={**self._environment, **(environment or {})},
                with_extended_output=True,
                with_exceptions=False,
                stdout_as_string=False,
                strip_newline_in_stdout=False,
                start_new_session=True,
            )
        if status:
            failure = storage_error(said, f"git {command}", self._root)
            raise failure or RepositoryError(f"git {command}: {_gist(said)}")
        return output, said

    def ids(self, *names: str) -> list[str | None]:
        """Return the object that each name leads to, for example ``HEAD:a/file``; None if there is none."""
        found = self.call("cat-file", "--batch-check=%(objectname)", data=lines(names)).splitlines()
        return [None if " " in line else line for line in found]  # "HEAD:a/file missing"

    def objects(self, names: Sequence[str]) -> dict[str, tuple[str, bytes]]:
        """Return type and data of the objects that there are, by name."""
        output, _ = self.run("cat-file", "--batch", data=lines(names))
        found, at = dict[str, tuple[str, bytes]](), 0
        for name in names:
            end = output.index(b"\n", at)
            fields = output[at:end].rsplit(b" ", 2)
            at = end + 1
            if len(fields) == 3 and fields[2].isdigit():  # else it is missing, or no name
                size = int(fields[2])
                found[name] = fields[1].decode(), output[at : at + size]
                at += size + 1
        return found


def lines(names: Iterable[str]) -> bytes:
    """Return *names* as the input of a git command that reads one a line."""
    return "".join(f"{name}\n" for name in names).encode(errors="surrogateescape")


def configuration(values: Mapping[str, str]) -> dict[str, str]:
    """Return the environment that gives git these configuration values, before those of its files."""
    given = os.environ.get("GIT_CONFIG_COUNT", "")
    first = int(given) if given.isdecimal() else 0  # the user's own stay: one may be safe.directory
    environment = {"GIT_CONFIG_COUNT": str(first + len(values))}
    for number, (key, value) in enumerate(values.items(), first):
        environment |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return environment


def _gist(said: str) -> str:
    """Return the line of git's complaints that names the problem."""
    lines = said.strip().splitlines() or ["no reason given"]
    telling = [line for line in lines if line.startswith(("fatal: ", "error: "))]
    # Which files, or which command helps, stands below it, indented.
    below = [line.strip() for line in lines if line.startswith("\t")][:3]
    gist = [*lines, *telling][-1].rstrip(":") + (f": {', '.join(below)}" if below else "")
    relief = ": remove it, unless another git is at work" if gist.endswith(".lock': File exists.") else ""
    return single_line(gist.removesuffix("."), 400) + relief
