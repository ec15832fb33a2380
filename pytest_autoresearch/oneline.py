"""Text that somebody else wrote, made fit for one line of a terminal, a commit or a table."""

from __future__ import annotations

import re


def one_line(text: str, longest: int = 200) -> str:
    """Return *text* in one line of at most *longest* characters, none of which moves a cursor."""
    if len(text) <= longest and text.isprintable() and text == " ".join(text.split()):
        return text  # as nearly all of it is, and thousands of lines may be asked for
    # Cut first: a run may print megabytes without a line's end.
    text = re.sub(r"\x1b\[[0-?]*[ -/]*[@-~]", "", text[: 20 * longest])
    line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return line if len(line) <= longest else line[: longest - 1] + "…"
