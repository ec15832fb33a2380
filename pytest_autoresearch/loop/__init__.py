"""The loop of a campaign: ask, run, judge, tell. Knows nothing of pytest."""
