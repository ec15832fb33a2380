"""The test ``claim``: what a campaign has gained."""

from __future__ import annotations

from typing import Any

from pytest_autoresearch.campaign.writer import CampaignWriter
from pytest_autoresearch.loop.loop import fresh_seed
from pytest_autoresearch.plugin.items import ExperimentItem
from pytest_autoresearch.records.measurement import Measurement

RUNS = 2  # of the start, and of the incumbent


class ClaimItem(ExperimentItem):
    """The start and the incumbent of a campaign, measured afresh, side by side."""

    def __init__(self, *, writer: CampaignWriter, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._writer = writer

    def setup(self) -> None:
        """Refuse to go on when somebody else has changed what the campaign stands on."""
        self._writer.branch.check_unchanged()

    def runtest(self) -> None:
        """Measure both with the same seeds, and store what they say."""
        history = self._writer.history
        overheads = history.incumbent.overheads
        start: list[Measurement] = []
        final: list[Measurement] = []
        turns = [(history.header.files, start), (self._writer.files, final)]
        for seed in [fresh_seed() for _ in range(RUNS)]:
            turns.reverse()  # neither is always the first, for what that is worth on a machine that drifts
            for files, runs in turns:
                runs.append(self.measure(files, seed, score_claim_split=True, overheads=overheads))
        claim = self._writer.add_claim(tuple(start), tuple(final))
        self.note(gain=claim.gain, margin=claim.margin, runs=RUNS)
        metric = self.experiment.spec.metric
        self.autoresearch_outcome = "passed", f"{metric} {claim} in {RUNS} fresh runs each"
