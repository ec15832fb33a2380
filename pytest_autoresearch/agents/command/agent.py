"""A coding agent that is started by a command line, and edits ``train.py`` in a folder of its own."""

from __future__ import annotations

import difflib
import os
import shlex
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from pytest_autoresearch.agents.briefing import Briefing, repair_prompt, stable_context, trial_context
from pytest_autoresearch.agents.budget import check_budget
from pytest_autoresearch.agents.command.report import AgentReport, first_line, is_json, last_line
from pytest_autoresearch.agents.command.sandbox import KEPT_BACK, agent_policy, agent_sandbox
from pytest_autoresearch.agents.command.workspace import DESCRIPTION, Workspace
from pytest_autoresearch.errors import AgentUnavailable, NoAnswer, ProposalRefused, UsageError
from pytest_autoresearch.records.proposal import Failure, Proposal
from pytest_autoresearch.sandbox import launch
from pytest_autoresearch.sandbox.policy import Policy
from pytest_autoresearch.sandbox.process import SandboxedProcess
from pytest_autoresearch.system.signals import exit_reason

if TYPE_CHECKING:
    from pytest_autoresearch.agents.agent import AgentOptions

LARGEST_OUTPUT = 8 << 20  # bytes; of more the end is read
CANNOT_START = (126, 127)  # exit codes of the supervisor and of every shell
CLOSING = 10.0  # seconds for answers in progress to end and clean up
GIT_LIMIT = 10.0  # seconds

CONTRACT = """\
# What to do

Edit {script} in the working directory{state}. Try one idea. Every other file is fixed: if you change, add or
delete another file, your proposal is refused. Do not run the script or anything else that takes long: the
harness measures it for you.

Then write what you changed, in one line of at most 200 characters, to the file {description}
(its path is in $AUTORESEARCH_DESCRIPTION_FILE), and answer with this line alone.
"""


class Command:
    """A coding agent: ``claude -p …``, ``codex exec …`` or a program of the user's own.

    It is started without a shell in a :class:`Workspace`, with the prompt as its standard input. The proposal
    is ``train.py`` as the agent leaves it, if it exits with 0 and has changed no other file. It and all its
    descendants are killed after ``autoresearch_agent_timeout``, when it has ended, and when pytest ends, even
    by ``kill -9``.

    Without ``autoresearch_agent_sandbox`` it can read and change what the user can, the validation data
    included. In the sandbox it has the network and the user's home, where agents keep keys and sessions, but
    sees neither the user's repository nor the data. With Landlock it can create nothing directly in a folder
    above something hidden, as the home mostly is. The sandbox is not a security boundary: the agent can write
    to the home, and plant files that the user later runs.
    """

    takes_time = True

    def __init__(self, line: str, options: AgentOptions) -> None:
        """Find the program of the command *line*, which is split as a shell does.

        Raises:
            UsageError: there is no such program, the line is malformed, or the sandbox does not work here.
        """
        try:
            words = shlex.split(line)
        except ValueError as error:
            raise UsageError(f"--autoresearch-agent={line}: {error}") from error
        program = shutil.which(words[0]) if words else None
        if program is None:
            raise UsageError(f"--autoresearch-agent={line}: there is no such program")
        self._command = [os.path.abspath(program), *words[1:]]  # noqa: PTH100 - a link may be its name
        self.name = Path(program).name
        self._options = options
        self.sandbox, self._repository = agent_sandbox(options.sandbox, options.script.parent)
        self._state = threading.Condition()
        self._working: dict[int, SandboxedProcess | None] = {}
        """The process that each thread waits for; None while there is none, but a workspace."""
        self._closed = False

    def propose(self, briefing: Briefing) -> Proposal:
        """Return the agent's change of the incumbent."""
        return self._answer(briefing, briefing.script, "")

    def fix(self, briefing: Briefing, failure: Failure) -> Proposal:
        """Return the agent's repair of its own crashed proposal; no change gives it up."""
        crashed = failure.proposal.files.get(briefing.script_name, briefing.script)
        return self._answer(briefing, crashed, repair_prompt(briefing, failure))

    def close(self) -> None:
        """Kill the agents that still run; return when their processes and files are gone."""
        with self._state:
            self._closed = True
            for process in filter(None, self._working.values()):
                process.cancel()
            self._state.wait_for(lambda: not self._working, CLOSING)

    def _answer(self, briefing: Briefing, source: str, crashed: str) -> Proposal:
        check_budget(briefing)
        folder, name = self._options.script.parent.name, self._options.script.name
        script = f"{folder}/{name}"
        files = {script: source}
        for other, text in (("prepare.py", briefing.fixed), ("program.md", briefing.program)):
            if text:
                files[f"{folder}/{other}"] = text
        state = "; it holds your proposal as it crashed" if crashed else ""
        contract = CONTRACT.format(script=script, state=state, description=DESCRIPTION)
        prompt = (stable_context(briefing), trial_context(briefing), crashed, contract)
        with self._state:
            if self._closed:
                raise NoAnswer("it was ended")
            self._working[threading.get_ident()] = None
        try:
            with Workspace.opened(script, files, "\n".join(filter(None, prompt))) as place:
                return self._work(briefing, place, source)
        except UnicodeEncodeError as error:
            raise NoAnswer("the experiment is not encodable as UTF-8") from error
        except OSError as error:
            raise AgentUnavailable(f"{self.name} cannot be started: {error.strerror or error}") from error
        finally:
            with self._state:
                del self._working[threading.get_ident()]
                self._state.notify_all()

    def _work(self, briefing: Briefing, place: Workspace, source: str) -> Proposal:
        """Run the agent, and return its proposal; raise OSError if it cannot be started."""
        hidden = (*self._repository, *briefing.hidden)
        policy = agent_policy(self.sandbox, Path(self._command[0]), hidden, place.scratch, place.root)
        code, output, errors = self._run(self._command, place.prompt, place, policy, self._options.timeout)
        report = AgentReport.of(output)
        if code:
            last = first_line(report.text) or last_line(errors) or last_line(output)
            unable = code in CANNOT_START or last.startswith("bwrap: ")
            reason = f"{exit_reason(code)}: {last or 'no output'}"
            raise (AgentUnavailable if unable else NoAnswer)(reason, usage=report.usage)
        try:
            changed = place.changed()
        except ProposalRefused as error:
            raise NoAnswer(str(error), usage=report.usage) from error
        last = last_line(output)
        description = (
            first_line(place.described())
            or first_line(report.text)
            or self._subject(place, policy)
            or ("" if is_json(last) else last)
            or _diffstat(source, changed)
        )
        return Proposal({briefing.script_name: changed}, description, agent=self.name, usage=report.usage)

    def _subject(self, place: Workspace, policy: Policy) -> str:
        """Return the subject of the agent's last commit, empty if there is none."""
        log = ["git", "log", "-1", "--format=%s", f"{place.commit}..HEAD"]
        try:
            # In the sandbox of the agent, which may have made git start programs of its own.
            code, subject, _ = self._run(log, Path(os.devnull), place, policy, GIT_LIMIT)
        except (NoAnswer, OSError):
            return ""
        return "" if code else first_line(subject)

    def _run(
        self, command: Sequence[str], given: Path, place: Workspace, policy: Policy, limit: float
    ) -> tuple[int, str, str]:
        """Run *command* with the file *given* as its input; return exit code, output and errors.

        Raises:
            NoAnswer: it took longer than *limit* seconds, or the agent was closed meanwhile.
            OSError: it, or the sandbox, cannot be started.
        """
        with (
            given.open("rb") as prompt,
            tempfile.TemporaryFile(dir=place.scratch) as output,
            tempfile.TemporaryFile(dir=place.scratch) as errors,
        ):
            stdio, environment = (prompt.fileno(), output.fileno(), errors.fileno()), _environment(place)
            with launch.start(command, policy, self.sandbox, environment, stdio=stdio) as process:
                with self._state:
                    self._working[threading.get_ident()] = process
                    if self._closed:
                        process.cancel()
                try:
                    code = process.wait(limit)
                except subprocess.TimeoutExpired as error:
                    raise NoAnswer(f"no answer after {limit:g} s") from error
            if self._closed:
                raise NoAnswer("it was ended")
            return code, _end_of(output), _end_of(errors)


def _environment(place: Workspace) -> dict[str, str]:
    """Return the user's environment, with the variables of the contract."""
    own = {key: value for key, value in os.environ.items() if not KEPT_BACK.fullmatch(key)}
    return own | {
        "AUTORESEARCH_PROMPT_FILE": str(place.prompt),
        "AUTORESEARCH_DESCRIPTION_FILE": str(place.description),
        # Without its repository, git must not find another one further up.
        "GIT_CEILING_DIRECTORIES": str(place.scratch),
        "PWD": str(place.root),
    }


def _end_of(file: IO[bytes]) -> str:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - LARGEST_OUTPUT))
    return file.read(LARGEST_OUTPUT).decode(errors="replace")


def _diffstat(before: str, after: str) -> str:
    """Return the numbers of lines that were added and removed, as git counts them."""
    changes = list(difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm=""))[2:]
    added, removed = (sum(line.startswith(sign) for line in changes) for sign in "+-")
    return f"+{added} -{removed} lines"
