"""The editor of a script that a model uses through tools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from pytest_autoresearch.errors import NoAnswer, ProposalRefused, ToolError
from pytest_autoresearch.records.proposal import Proposal
from pytest_autoresearch.source import canonical, validation
from pytest_autoresearch.source.files import digest
from pytest_autoresearch.text import single_line

if TYPE_CHECKING:
    from pytest_autoresearch.agents.briefing import Briefing


def _tool(name: str, description: str, /, **texts: str) -> dict[str, Any]:
    properties = {key: {"type": "string", "description": text} for key, text in texts.items()}
    schema = {"type": "object", "properties": properties, "required": list(texts)}
    return {
        "name": name,
        "description": description,
        "input_schema": schema | {"additionalProperties": False},
    }


TOOLS: Final[Sequence[Mapping[str, Any]]] = (
    _tool(
        "edit",
        "Replace a piece of the script. You may make several edits, one after the other.",
        old="The text to replace, with its whitespace; it must occur exactly once.",
        new="The text that takes its place; empty to delete it.",
    ),
    _tool(
        "write_file",
        "Replace all of the script. Use it where edits would be longer than the whole.",
        text="The whole new text.",
    ),
    _tool(
        "submit",
        "Propose the script as it is now. It is validated; on failure you get the errors and can fix them.",
        description="What you changed, in one line of at most 200 characters, as the subject of a commit.",
        hypothesis="Why it should help, in one line.",
    ),
    _tool("give_up", "Propose nothing, because nothing is worth a run.", reason="Why, in one line."),
)


class ScriptEditor:
    """A script after the tool calls so far."""

    def __init__(self, briefing: Briefing, crashed: str | None = None) -> None:
        """Begin with the incumbent, or with a script that *crashed* and is to be repaired."""
        self.source = briefing.script if crashed is None else crashed
        self.proposal: Proposal | None = None
        """The submitted proposal, None before that."""
        self._briefing, self._crashed = briefing, crashed

    def use(self, tool: object, given: object) -> str:
        """Apply a tool call, and return the result for the model.

        Raises:
            ToolError: the call is invalid, and nothing was changed.
            NoAnswer: the model called ``give_up``.
        """
        schema = next((known["input_schema"] for known in TOOLS if known["name"] == tool), None)
        if schema is None:
            raise ToolError(f"there is no such tool: use {', '.join(known['name'] for known in TOOLS)}")
        names = schema["required"]
        if not isinstance(given, Mapping) or set(given) != set(names):
            raise ToolError(f"{tool} takes an object with {' and '.join(names)}")
        texts = [given[name] for name in names]
        if not all(isinstance(text, str) for text in texts):
            raise ToolError(f"of {tool}, {' and '.join(names)} must be text")
        told: str = getattr(self, f"_{tool}")(*texts)
        return told

    def _edit(self, old: str, new: str) -> str:
        first = self.source.find(old) if old else -1
        if first < 0:
            raise ToolError("`old` does not occur in the script: it must match exactly, whitespace too")
        if self.source.find(old, first + 1) >= 0:
            raise ToolError("`old` occurs more than once in the script: include more of the text around it")
        self.source = self.source[:first] + new + self.source[first + len(old) :]
        return "edited"

    def _write_file(self, text: str) -> str:
        self.source = text
        return "written"

    def _submit(self, description: str, hypothesis: str) -> str:
        if not (subject := single_line(description)):
            raise ToolError("the description is empty: say what you changed")
        try:
            self._check()
        except ProposalRefused as error:
            raise ToolError(f"not submitted: {error}") from error
        files = {self._briefing.script_name: self.source}
        self.proposal = Proposal(files, subject, single_line(hypothesis, 400))
        return "submitted"

    def _give_up(self, reason: str) -> str:
        raise NoAnswer(f"gave up: {single_line(reason) or 'no reason given'}")

    def _check(self) -> None:
        """Refuse what the trial would refuse, as far as the briefing tells."""
        briefing = self._briefing
        validation.check(self.source, briefing.script, briefing.device, briefing.fixed)
        if alike := canonical.equivalent_up_to(briefing.script, self.source):
            raise ProposalRefused(f"no experiment: {alike} changed")
        if self._crashed is not None and (alike := canonical.equivalent_up_to(self._crashed, self.source)):
            raise ProposalRefused(f"it would crash again: {alike} changed since")
        running = (proposal.files.get(briefing.script_name, "") for proposal in briefing.running)
        if canonical.digest(self.source) in map(canonical.digest, running):
            raise ProposalRefused("the same script as the one that is being measured now")
        known = digest({**briefing.files, briefing.script_name: self.source})
        for entry in briefing.history:
            if entry.digest == known:
                again = f"trial {entry.number}, {entry.verdict}: {entry.reason}"
                raise ProposalRefused(f"the same script as {again}")
