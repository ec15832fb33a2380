"""``results.tsv``, with upstream's five columns, and the closing summary."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_autoresearch.disk import writing
from pytest_autoresearch.measuring.measurement import Measurement, exact, figure, mean_score
from pytest_autoresearch.oneline import one_line

if TYPE_CHECKING:
    from pytest_autoresearch.campaign import Campaign
    from pytest_autoresearch.ledger import Entry, Verdict

# Upstream knows three outcomes, and tools that read its file know no others.
STATUS: dict[Verdict, str] = {
    "kept": "keep",
    "discarded": "discard",
    "crashed": "crash",
    "out of memory": "crash",
    "timeout": "crash",
    "refused": "crash",
}


class Results:
    """The file, one row a trial: commit, score, memory in GB, status, description."""

    def __init__(self, path: Path, metric: str, rows: Iterable[str]) -> None:
        self._path = path
        self._rows = [f"commit\t{metric}\tmemory_gb\tstatus\tdescription\n", *rows]
        with writing(path):
            there = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
            opening, first = ("".join(lines[1:2])[:7] for lines in (self._rows, there.splitlines()))
            of_this = opening == first
            self.was_wrong = of_this and there != "".join(self._rows)
            """Whether the file was of this campaign, and said something else."""
            self._rebuild()

    def _rebuild(self) -> None:
        fresh = self._path.with_suffix(".tsv.new")
        fresh.write_text("".join(self._rows), encoding="utf-8")
        fresh.replace(self._path)

    def add(self, row: str) -> None:
        """Append *row*."""
        self._rows.append(row)
        with writing(self._path):
            if not self._path.exists():  # somebody has tidied up
                self._rebuild()
                return
            self._append(row)

    def _append(self, row: str) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(row)


def trial_row(entry: Entry) -> str:
    """Return a trial's row; one without a score has zeros, as upstream."""
    judged = entry.measurements if entry.verdict in ("kept", "discarded") else ()
    return _row(entry.commit, judged, STATUS[entry.verdict], entry.description)


def baseline_row(commit: str, measurements: Sequence[Measurement]) -> str:
    """Return the first row of a campaign."""
    return _row(commit, measurements, "keep", "baseline")


def _row(commit: str, measurements: Sequence[Measurement], status: str, description: str) -> str:
    score = mean_score(measurements) if measurements else 0.0
    memory = max((run.memory_mb or 0.0 for run in measurements), default=0.0) / 1024
    return f"{commit[:7]}\t{exact(score)}\t{memory:.1f}\t{status}\t{one_line(description)}\n"


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
    lines += [*_agents(entries), *_memory(campaign)]
    return [
        *lines,
        *_gained(campaign, metric),
        *_pruned(campaign),
        f"kept trials: git log refs/autoresearch/{tag}/0000..autoresearch/{tag}",
        f"all trials:  git log --no-walk --glob='refs/autoresearch/{tag}/*'",
    ]


def _agents(entries: Sequence[Entry]) -> Iterator[str]:
    """Say who proposed how often, and what it cost, where there was a choice or a cost."""
    counts = Counter(entry.agent or "others" for entry in entries if not entry.unanswered)
    cost = sum(entry.usage.cost for entry in entries)
    unanswered = sum(entry.unanswered for entry in entries)
    if len(counts) > 1 or cost or unanswered:
        parts = [f"{agent} {count}" for agent, count in counts.most_common()]
        parts += [f"nobody {unanswered}"] * bool(unanswered)
        parts += [f"{cost:.2f} US dollars"] * bool(cost)
        yield f"proposals: {', '.join(parts)}"


def _gained(campaign: Campaign, metric: str) -> Iterator[str]:
    """Say what fresh runs say; never what the best of many draws did."""
    claim = campaign.claimed
    if claim is not None:
        start, final = (statistics.fmean(run.claimed for run in runs) for runs in (claim.start, claim.final))
        unseen = ", on text that no verdict saw" if claim.final[0].claim is not None else ""
        gain = f"{metric} {figure(start)} -> {figure(final)} ({claim})"
        yield f"{gain} in {len(claim.final)} fresh runs each, side by side{unseen}"
    elif campaign.is_to_claim:
        start, now = campaign.start_score, campaign.standing.belief
        yield f"{metric} {figure(start)} -> {figure(now.mean)} is believed, not claimed: no fresh run says so"
        again = f"pytest --autoresearch --autoresearch-trials=0 --autoresearch-tag={campaign.tag}"
        yield f"measure the gain: {again}"


def _memory(campaign: Campaign) -> Iterator[str]:
    start, limit = campaign.start_memory, campaign.memory_soft_limit()
    now = max((run.memory_mb for run in campaign.incumbent.measurements if run.memory_mb), default=None)
    if start is not None and now is not None and limit is not None:
        over = ", which is over" if now > limit else ""
        yield f"memory: {start:.0f} MB -> {now:.0f} MB, soft limit {limit:.0f} MB{over}"


def _pruned(campaign: Campaign) -> Iterator[str]:
    entries = campaign.ledger.entries
    ended = sum(entry.verdict == "discarded" and entry.score is None for entry in entries)
    replayed = campaign.replay()
    if ended:
        yield f"pruned: {ended} of {len(entries)} trials ended early"
    if replayed.ended:
        yield f"of the trials that ran to their end {replayed}"
