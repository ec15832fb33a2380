"""Any coding agent that can be started by a command line: it edits ``train.py`` as its user would."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pytest

from pytest_autoresearch.agents.briefing import Briefing, repair_prompt, stable_context, trial_context
from pytest_autoresearch.agents.command.report import AgentReport, first_line, is_json, last_line
from pytest_autoresearch.agents.command.workspace import Workspace
from pytest_autoresearch.errors import (
    AgentUnavailable,
    BudgetExhausted,
    NoAnswer,
    ProposalRefused,
    SandboxUnavailable,
)
from pytest_autoresearch.records.proposal import Failure, Proposal
from pytest_autoresearch.sandbox import launch
from pytest_autoresearch.system.text import single_line

if TYPE_CHECKING:
    from pytest_autoresearch.settings import Settings

FIXED, PROGRAM = "prepare.py", "program.md"
LARGEST_OUTPUT = 8 << 20  # bytes; of more the end is read
CANNOT_START = (126, 127)  # exit codes, of the warden as of every shell
CLOSING = 10.0  # seconds that answers in progress get to end and clean up
ASKING_GIT = 10.0  # seconds

# What an agent does not inherit: where data lies, what is pytest's, and what would lead git elsewhere.
KEPT_BACK = re.compile(
    r"AUTORESEARCH_.*|HF_(HOME|HUB_CACHE|ASSETS_CACHE|DATASETS_CACHE)|PYTEST_.*|COV(ERAGE)?_.*|OLDPWD"
    r"|GIT_(DIR|WORK_TREE|COMMON_DIR|INDEX_FILE|NAMESPACE|PREFIX|(ALTERNATE_)?OBJECT_DIRECTOR(Y|IES))"
)
# Files that the certificates of a network's own are looked up in.
CERTIFICATES = (
    "CURL_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
)

CONTRACT = """\
# What to do

Edit {script}, here in the working directory{state}. Try one idea. Every other file is fixed: if you change,
add or delete another one, your proposal is refused. Do not run the script, nor anything else that takes long:
it is measured for you.

Then write what you have changed, in one line of at most 200 characters, to the file {description}
(its path is in $AUTORESEARCH_DESCRIPTION_FILE), and answer with this line alone.
"""
CRASHED = "; it holds your proposal as it crashed"


class Command:
    """A coding agent: ``claude -p …``, ``codex exec …`` or a program of the user's own.

    For every proposal it gets a fresh directory with the experiment's files and nothing else of the user's
    repository, in a git repository of its own. The prompt is its standard input, and lies in the file
    ``$AUTORESEARCH_PROMPT_FILE``. What it makes of ``train.py`` is the proposal, if it exits with 0 and has
    changed no other file.

    It is started without a shell, and with all its descendants it is killed when it takes longer than
    ``autoresearch_agent_timeout``, when it has ended, and when pytest ends, even by ``kill -9``.

    It runs as the user: without ``autoresearch_agent_sandbox`` it can read and change what the user can, the
    validation data too. In the sandbox it has the network and the user's home, where agents keep their keys
    and sessions, but sees neither the user's repository nor the data. With Landlock nothing new can be made
    in a folder above something hidden, which the home itself mostly is. The sandbox keeps the data from an
    agent that looks around; it is no cage, for who may write to a home may leave there what the user starts
    later.
    """

    takes_time = True

    def __init__(self, line: str, settings: Settings) -> None:
        """Find the program of the command *line*, which is split as a shell would.

        Raises:
            pytest.UsageError: there is no such program, the line is none, or the sandbox does not work here.
        """
        try:
            words = shlex.split(line)
        except ValueError as error:
            raise pytest.UsageError(f"--autoresearch-agent={line}: {error}") from error
        program = shutil.which(words[0]) if words else None
        if program is None:
            raise pytest.UsageError(f"--autoresearch-agent={line}: there is no such program")
        self._command = [os.path.abspath(program), *words[1:]]  # noqa: PTH100 - a link may be its name
        self.name = Path(program).name
        self._settings = settings
        self.sandbox = _enforcer(settings.agent_sandbox)
        self._repository: tuple[Path, ...] = ()
        if self.sandbox != "none":
            self._repository = tuple(_places_of(settings.script.parent))
            if problem := _exposed(self._repository):
                raise pytest.UsageError(f"autoresearch_agent_sandbox={settings.agent_sandbox}: {problem}")
        self._state = threading.Condition()
        self._working = 0
        self._runs: set[launch.SandboxedProcess] = set()
        self._closed = False

    def propose(self, briefing: Briefing) -> Proposal:
        """Return what the agent makes of the incumbent.

        Raises:
            NoAnswer: it failed, took too long, or changed nothing or too much.
            Gone: it cannot be started.
            Spent: proposals may cost no more.
        """
        return self._answer(briefing, briefing.script, "")

    def fix(self, briefing: Briefing, failure: Failure) -> Proposal:
        """Return what the agent makes of its crashed proposal.

        Raises:
            NoAnswer: as for a proposal; that it changed nothing is how it gives one up.
        """
        return self._answer(briefing, failure.proposal.source, repair_prompt(briefing, failure))

    def close(self) -> None:
        """Kill whatever still works on an answer; return when nothing of it is left, its files included."""
        with self._state:
            self._closed = True
            for guarded in self._runs:
                guarded.cancel()
            self._state.wait_for(lambda: not self._working, CLOSING)

    # -- an answer ------------------------------------------------------------------------------------------

    def _answer(self, briefing: Briefing, source: str, crashed: str) -> Proposal:
        if briefing.max_cost is not None and briefing.cost >= briefing.max_cost:
            raise BudgetExhausted(f"{briefing.cost:.2f} of {briefing.max_cost:.2f} US dollars are spent")
        folder, name = self._settings.script.parent.name, self._settings.script.name
        files = {FIXED: briefing.fixed, PROGRAM: briefing.program}
        beside = {f"{folder}/{other}": text for other, text in files.items() if text}
        script = f"{folder}/{name}"
        try:
            with self._at_work(), Workspace.opened(script, {**beside, script: source}) as place:
                place.prompt.write_text(self._prompt(briefing, place, crashed), encoding="utf-8")
                return self._work(briefing, place, source)
        except UnicodeEncodeError as error:
            raise NoAnswer("the experiment is not encodable as UTF-8") from error
        except OSError as error:
            raise AgentUnavailable(f"{self.name} cannot be started: {error.strerror or error}") from error

    def _prompt(self, briefing: Briefing, place: Workspace, crashed: str) -> str:
        contract = CONTRACT.format(
            script=place.script,
            state=CRASHED if crashed else "",
            description=place.description.relative_to(place.root),
        )
        return "\n".join(filter(None, [stable_context(briefing), trial_context(briefing), crashed, contract]))

    def _work(self, briefing: Briefing, place: Workspace, source: str) -> Proposal:
        """Let the agent work; return what it has made.

        Raises:
            NoAnswer: that is no proposal.
            OSError: the agent, or the sandbox, cannot be started.
        """
        policy = self._policy(briefing, place)
        limit = self._settings.agent_timeout
        code, output, errors = self._run(self._command, place.prompt, place, policy, limit)
        report = AgentReport.of(output)
        if code:
            last = first_line(report.text) or last_line(errors) or last_line(output)
            unable = code in CANNOT_START or last.startswith("bwrap: ")
            raise (AgentUnavailable if unable else NoAnswer)(
                f"{_ending(code)}: {last or 'no output'}", usage=report.usage
            )
        if elsewhere := place.elsewhere():
            raise NoAnswer(elsewhere, usage=report.usage)
        try:
            changed = place.read()
        except ProposalRefused as error:
            raise NoAnswer(str(error), usage=report.usage) from error
        if changed == source:
            raise NoAnswer("changed nothing", usage=report.usage)
        descriptions = self._descriptions(place, policy, report, output)
        description = next(filter(None, map(single_line, descriptions)), place.diffstat(changed))
        return Proposal(changed, description, agent=self.name, usage=report.usage)

    def _descriptions(
        self, place: Workspace, policy: launch.Policy, report: AgentReport, output: str
    ) -> Iterator[str]:
        """Yield what may describe the change, the best first; some are empty."""
        yield first_line(place.described())
        yield first_line(report.text)
        # With the rights of the agent: the repository, and what its configuration has git start, are its own.
        log = ["git", "log", "-1", "--format=%s", f"{place.commit}..HEAD"]
        with contextlib.suppress(NoAnswer, OSError):
            code, subject, _ = self._run(log, Path(os.devnull), place, policy, ASKING_GIT)
            yield "" if code else first_line(subject)
        last = last_line(output)
        yield "" if is_json(last) else last

    # -- its process ----------------------------------------------------------------------------------------

    def _run(
        self, command: Sequence[str], given: Path, place: Workspace, policy: launch.Policy, limit: float
    ) -> tuple[int, str, str]:
        """Run *command*, *given* a file to read; return its exit code, its output and its errors.

        Raises:
            NoAnswer: it took longer than *limit* seconds, or the agent was closed meanwhile.
            OSError: it, or the sandbox, cannot be started.
        """
        with (
            given.open("rb") as prompt,
            tempfile.TemporaryFile(dir=place.scratch) as output,
            tempfile.TemporaryFile(dir=place.scratch) as errors,
        ):
            stdio = prompt.fileno(), output.fileno(), errors.fileno()
            environment = _environment(place)
            with launch.start(command, policy, self.sandbox, environment, stdio=stdio) as guarded:
                code = self._wait(guarded, limit)
            return code, _end_of(output), _end_of(errors)

    def _wait(self, guarded: launch.SandboxedProcess, limit: float) -> int:
        with self._state:
            self._runs.add(guarded)
            if self._closed:
                guarded.cancel()
        try:
            code = guarded.wait(limit)
        except subprocess.TimeoutExpired as error:
            raise NoAnswer(f"no answer after {limit:g} s") from error
        finally:
            with self._state:
                self._runs.discard(guarded)
        if self._closed:
            raise NoAnswer("it was ended")
        return code

    @contextlib.contextmanager
    def _at_work(self) -> Iterator[None]:
        """Note that there is something to clean up, until there is not."""
        with self._state:
            if self._closed:
                raise NoAnswer("it was ended")
            self._working += 1
        try:
            yield
        finally:
            with self._state:
                self._working -= 1
                self._state.notify_all()

    def _policy(self, briefing: Briefing, place: Workspace) -> launch.Policy:
        """Return what the agent may see.

        Raises:
            OSError: something that is to be hidden cannot be.
        """
        if self.sandbox == "none":
            return launch.Policy(place.scratch, work=place.root, agent=True)
        hidden = (*self._repository, *briefing.hidden, *_caches())
        if problem := _exposed(hidden):
            raise OSError(problem)
        certificates = (os.environ[name] for name in CERTIFICATES if name in os.environ)
        return launch.Policy(
            place.scratch,
            readable=(*_whereabouts(Path(self._command[0]), hidden), *map(Path, certificates)),
            hidden=hidden,
            writable=(Path.home(),),
            work=place.root,
            agent=True,
        )


def _environment(place: Workspace) -> dict[str, str]:
    """Return the user's own environment, with what an agent is told."""
    own = {key: value for key, value in os.environ.items() if not KEPT_BACK.fullmatch(key)}
    return own | {
        "AUTORESEARCH_PROMPT_FILE": str(place.prompt),
        "AUTORESEARCH_DESCRIPTION_FILE": str(place.description),
        # Whatever becomes of the repository, git does not look for another one further up.
        "GIT_CEILING_DIRECTORIES": str(place.scratch),
        "PWD": str(place.root),
    }


def _end_of(file: IO[bytes]) -> str:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - LARGEST_OUTPUT))
    return file.read(LARGEST_OUTPUT).decode(errors="replace")


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    names = {number.value: number.name for number in signal.Signals}
    return f"killed by {names.get(-code, f'signal {-code}')}"


# -- the sandbox --------------------------------------------------------------------------------------------


def _enforcer(asked: str) -> launch.Enforcer:
    try:
        enforcer = launch.choose(asked)
    except SandboxUnavailable as error:
        raise pytest.UsageError(f"autoresearch_agent_sandbox={asked}: {error}") from error
    if asked == "auto" and enforcer == "none":
        raise pytest.UsageError("autoresearch_agent_sandbox=auto: neither bwrap nor landlock works here")
    return enforcer


def _places_of(folder: Path) -> Iterator[Path]:
    """Yield where the repository around *folder* lies, and its git directory, which may lie elsewhere."""
    yield folder
    with contextlib.suppress(FileNotFoundError):  # without git there is no campaign either
        done = subprocess.run(
            ["git", "rev-parse", "--path-format=absolute", "--show-toplevel", "--git-common-dir"],
            cwd=folder,
            env={key: value for key, value in os.environ.items() if not KEPT_BACK.fullmatch(key)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        yield from map(Path, done.stdout.splitlines())


def _caches() -> Iterator[Path]:
    """Yield where ``prepare.py`` keeps data, of other versions and profiles too."""
    if own := os.environ.get("AUTORESEARCH_CACHE"):
        yield Path(own)
    yield Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "pytest-autoresearch")


def _exposed(hidden: Sequence[Path]) -> str | None:
    """Return what keeps *hidden* from being hidden from who may use the home, None if nothing does."""
    home = Path.home().resolve()
    if home == Path("/"):
        return "the home is /, and nothing in it can be hidden"
    for path in (path.resolve() for path in hidden):
        if path == home or path in home.parents:
            return f"{path} is to be hidden, and the home lies in it"
    return None


def _whereabouts(program: Path, hidden: Sequence[Path]) -> Iterator[Path]:
    """Yield *program*, by each of its names, and its folder unless that is hidden, or holds what is."""
    real = program.resolve()
    yield from (program, real)
    folder = real.parent.parent if real.parent.name == "bin" else real.parent
    for path in (path.resolve() for path in hidden):
        if path == folder or path in folder.parents or folder in path.parents:
            return
    yield folder
