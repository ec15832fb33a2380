"""Text from others, made safe for one line of a terminal, a commit or a table."""

from __future__ import annotations

import re

MARK = "> "  # before each quoted line of a run's output


def single_line(text: str, longest: int = 200) -> str:
    """Return *text* in one line of at most *longest* characters, without any that moves a cursor."""
    if len(text) <= longest and text.isprintable() and text == " ".join(text.split()):
        return text  # nearly always, and there may be thousands of lines
    # Cut first: a run may print megabytes without a line's end.
    text = re.sub(r"\x1b\[[0-?]*[ -/]*[@-~]", "", text[: 20 * longest])
    line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def quoted(text: str, longest: int = 200) -> str:
    """Return *text* of a run or its script in one line in double quotes, with none inside.

    The harness's own words have no double quotes, so that a reader can tell both apart.
    """
    inner = single_line(text, longest - 2).replace('"', "'")
    return f'"{inner}"'
