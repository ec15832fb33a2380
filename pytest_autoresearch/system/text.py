"""Text that somebody else wrote, made fit for one line of a terminal, a commit or a table."""

from __future__ import annotations

import re

MARK = "> "  # before each line of what a run has printed, where it stands below a line of the harness's


def single_line(text: str, longest: int = 200) -> str:
    """Return *text* in one line of at most *longest* characters, none of which moves a cursor."""
    if len(text) <= longest and text.isprintable() and text == " ".join(text.split()):
        return text  # as nearly all of it is, and thousands of lines may be asked for
    # Cut first: a run may print megabytes without a line's end.
    text = re.sub(r"\x1b\[[0-?]*[ -/]*[@-~]", "", text[: 20 * longest])
    line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def quoted(text: str, longest: int = 200) -> str:
    """Return *text*, which a run or its script chose, in one line in double quotes; none of its own are left.

    In the harness's own words there are no double quotes, so that nobody takes the one for the other.
    """
    inner = single_line(text, longest - 2).replace('"', "'")
    return f'"{inner}"'
