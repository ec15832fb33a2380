"""The closing lines of a session: what a campaign has come to."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Sequence

from pytest_autoresearch.campaign.results import STATUS
from pytest_autoresearch.campaign.writer import Campaign
from pytest_autoresearch.records.measurement import format_score
from pytest_autoresearch.records.trial import Trial


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
    lines += [
        f"  {entry.number:04d}  {format_score(entry.score or 0)}  {entry.description}" for entry in kept
    ]
    lines += [*_agents(entries), *_memory(campaign)]
    return [
        *lines,
        *_gained(campaign, metric),
        *_pruned(campaign),
        f"kept trials: git log refs/autoresearch/{tag}/0000..autoresearch/{tag}",
        f"all trials:  git log --no-walk --glob='refs/autoresearch/{tag}/*'",
    ]


def _agents(entries: Sequence[Trial]) -> Iterator[str]:
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
        gain = f"{metric} {format_score(start)} -> {format_score(final)} ({claim})"
        yield f"{gain} in {len(claim.final)} fresh runs each, side by side{unseen}"
    elif campaign.is_to_claim:
        start, now = campaign.start_score, campaign.standing.belief
        gain = f"{metric} {format_score(start)} -> {format_score(now.mean)}"
        yield f"{gain}, estimated: not yet confirmed by independent runs"
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
