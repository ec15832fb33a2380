"""``results.tsv``, with upstream's five columns, and the closing summary."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_autoresearch.measuring.measurement import Measurement, exact, figure, mean_score

if TYPE_CHECKING:
    from pytest_autoresearch.campaign import Campaign
    from pytest_autoresearch.ledger import Entry, Verdict

# Upstream knows three outcomes, and tools that read its file know no others.
STATUS: dict[Verdict, str] = {
    "kept": "keep",
    "discarded": "discard",
    "crashed": "crash",
    "timeout": "crash",
    "refused": "crash",
}


class Results:
    """The file, one row a trial: commit, score, memory in GB, status, description."""

    def __init__(self, path: Path, metric: str, rows: Iterable[str]) -> None:
        self._path = path
        header = f"commit\t{metric}\tmemory_gb\tstatus\tdescription\n"
        fresh = path.with_suffix(".tsv.new")
        fresh.write_text(header + "".join(rows), encoding="utf-8")
        fresh.replace(path)

    def add(self, row: str) -> None:
        """Append *row*."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(row)


def trial_row(entry: Entry) -> str:
    """Return a trial's row; one without a score has zeros, as upstream."""
    return _row(entry.commit, entry.measurements, STATUS[entry.verdict], entry.description)


def baseline_row(commit: str, measurements: Sequence[Measurement]) -> str:
    """Return the first row of a campaign."""
    return _row(commit, measurements, "keep", "baseline")


def _row(commit: str, measurements: Sequence[Measurement], status: str, description: str) -> str:
    score = mean_score(measurements) if measurements else 0.0
    memory = max((run.memory_mb or 0.0 for run in measurements), default=0.0) / 1024
    text = re.sub(r"\s+", " ", description)
    return f"{commit[:7]}\t{exact(score)}\t{memory:.1f}\t{status}\t{text}\n"


def summary(campaign: Campaign, metric: str) -> list[str]:
    """Return the closing lines of a session: what was kept, and where to look."""
    entries, tag = campaign.ledger.entries, campaign.tag
    counts = Counter(entry.verdict for entry in entries)
    parts = [f"{counts[verdict]} {verdict}" for verdict in STATUS if counts[verdict]]
    trials = "1 trial" if len(entries) == 1 else f"{len(entries)} trials"
    lines = [f"{trials}: {', '.join(parts)}" if parts else "no trials yet"]
    kinds = {f"{run.trust} scores, sandbox {run.sandbox}" for entry in entries for run in entry.measurements}
    lines += sorted(kinds)
    kept = [entry for entry in entries if entry.verdict == "kept"]
    lines += [f"  {entry.number:04d}  {figure(entry.score or 0)}  {entry.description}" for entry in kept]
    start, best = campaign.start_score, campaign.incumbent.mean
    if kept:
        # The run that won a comparison is a lucky one more often than not.
        gain = f"{metric} {figure(start)} -> {figure(best)} ({figure(best - start, '+')})"
        lines.append(f"{gain}, as the winning run measured it")
    return [
        *lines,
        f"kept trials: git log refs/autoresearch/{tag}/0000..autoresearch/{tag}",
        f"all trials:  git log --no-walk --glob='refs/autoresearch/{tag}/*'",
    ]
