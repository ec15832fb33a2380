"""Reads the user's keys: from the environment, its own and that of others, and from the home."""

import os
from pathlib import Path

from prepare import DATA, attempt, hand_in_shared_model

others = [number for number in os.listdir("/proc") if number.isdigit() and int(number) != os.getpid()]


def in_environments():
    found = []
    for number in others:
        try:
            text = Path(f"/proc/{number}/environ").read_bytes()
        except OSError:
            continue
        found += [part[:24] for part in text.split(b"\0") if b"KEY=" in part or b"TOKEN=" in part]
    return found


names = ("KEY", "TOKEN", "SECRET", "PASSWORD", "CREDENTIALS")
attempt("its environment", lambda: [name for name in os.environ if name.endswith(names)])
attempt("its environment as it was", lambda: b"_KEY=" in Path("/proc/self/environ").read_bytes())
attempt("the environment of others", in_environments)
attempt("the home", (DATA.parent / "home" / ".ssh" / "id_ed25519").read_bytes)
attempt("the home's names", lambda: os.listdir(DATA.parent / "home"))

hand_in_shared_model()
