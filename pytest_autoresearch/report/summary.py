"""The closing lines of a session: what a campaign has come to."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Sequence

from pytest_autoresearch.campaign.history import CampaignHistory
from pytest_autoresearch.campaign.refs import CampaignRefs, padded
from pytest_autoresearch.judging.judge import JudgeState
from pytest_autoresearch.records.measurement import format_score
from pytest_autoresearch.records.trial import VERDICTS, Trial


def summary(history: CampaignHistory, state: JudgeState, memory_soft_limit: float | None) -> list[str]:
    """Return the closing lines of a session: the counts, the kept trials, the gain, and where to look.

    *state* is that of the judge after the last trial, *memory_soft_limit* what the user has named, in MiB.
    """
    entries, refs = history.trials, CampaignRefs(history.tag)
    counts = Counter(entry.verdict for entry in entries)
    parts = [f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict]]
    trials = "1 trial" if len(entries) == 1 else f"{len(entries)} trials"
    lines = [f"{trials}: {', '.join(parts)}" if parts else "no trials yet"]
    kinds = {f"{run.trust} scores, sandbox {run.sandbox}" for entry in entries for run in entry.measurements}
    lines += sorted(kinds)
    lines += [
        f"  {padded(entry.number)}  {format_score(entry.score or 0)}  {entry.description}"
        for entry in history.kept
    ]
    return [
        *lines,
        *_agents(entries),
        *_memory(history, memory_soft_limit),
        *_gained(history, state),
        *_pruned(history, state),
        f"kept trials: git log {refs.header}..{refs.branch}",
        f"all trials:  git log --no-walk --glob='{refs.commits}'",
    ]


def _agents(entries: Sequence[Trial]) -> Iterator[str]:
    """Yield the number of proposals of each agent and their cost, if there are several agents or a cost."""
    counts = Counter(entry.agent or "others" for entry in entries if not entry.unanswered)
    cost = sum(entry.usage.cost for entry in entries)
    unanswered = sum(entry.unanswered for entry in entries)
    if len(counts) > 1 or cost or unanswered:
        parts = [f"{agent} {count}" for agent, count in counts.most_common()]
        parts += [f"nobody {unanswered}"] * bool(unanswered)
        parts += [f"{cost:.2f} US dollars"] * bool(cost)
        yield f"proposals: {', '.join(parts)}"


def _gained(history: CampaignHistory, state: JudgeState) -> Iterator[str]:
    """Yield the claimed gain, or the estimated one if there is no claim yet."""
    claim, metric = history.claim, history.incumbent.metric
    if claim is not None:
        start, final = (statistics.fmean(run.claimed for run in runs) for runs in (claim.start, claim.final))
        unseen = ", on text that no verdict saw" if claim.final[0].claim is not None else ""
        gain = f"{metric} {format_score(start)} -> {format_score(final)} ({claim})"
        yield f"{gain} in {len(claim.final)} fresh runs each, side by side{unseen}"
    elif history.is_to_claim:
        start, now = history.header.baseline.estimate.mean, state.incumbent
        gain = f"{metric} {format_score(start)} -> {format_score(now.mean)}"
        yield f"{gain}, estimated: not yet confirmed by independent runs"
        again = f"pytest --autoresearch --autoresearch-trials=0 --autoresearch-tag={history.tag}"
        yield f"measure the gain: {again}"


def _memory(history: CampaignHistory, asked: float | None) -> Iterator[str]:
    start, limit = history.header.memory_mb, history.memory_soft_limit(asked)
    now = max((run.memory_mb for run in history.incumbent.measurements if run.memory_mb), default=None)
    if start is not None and now is not None and limit is not None:
        over = ", which is over" if now > limit else ""
        yield f"memory: {start:.0f} MB -> {now:.0f} MB, soft limit {limit:.0f} MB{over}"


def _pruned(history: CampaignHistory, state: JudgeState) -> Iterator[str]:
    entries = history.trials
    ended = sum(entry.verdict == "discarded" and entry.score is None for entry in entries)
    replayed = history.backtest(state)
    if ended:
        yield f"pruned: {ended} of {len(entries)} trials ended early"
    if replayed.ended:
        yield f"of the trials that ran to their end {replayed}"
