"""Changes what git runs and what the campaign stands on: hooks, filters, prepare.py, baseline.json, refs."""

import os

from prepare import DATA, attempt, hand_in_shared_model

project = DATA.parent / "project"


def append(path, text="# a cheat was here\n"):
    def action():
        with open(project / path, "a") as file:
            return file.write(text)

    return action


def hook():
    path = project / ".git" / "hooks" / "post-commit"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\ntouch {DATA.parent}/hooked\n")
    path.chmod(0o755)
    return path


attempt("a hook", hook)
attempt("a filter", append(".git/config", "[core]\n\tfsmonitor = false\n"))
attempt("attributes", append(".gitattributes", "*.py filter=cheat\n"))
attempt("a ref", append(".git/refs/heads/main"))
attempt("prepare.py", append("experiment/prepare.py"))
attempt("train.py", append("experiment/train.py"))
attempt("baseline.json", append("experiment/baseline.json", " "))
attempt("program.md", append("experiment/program.md"))
attempt("the ledger", append(".autoresearch/t/ledger.jsonl", "{}\n"))
attempt("results.tsv", append("results.tsv"))
attempt("see what was tried", lambda: os.listdir(project / ".autoresearch" / "t" / "logs"))

hand_in_shared_model()
