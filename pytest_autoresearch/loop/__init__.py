"""The loop of a campaign: ask, run, judge, tell.

May import settings, executors, agents and campaign, and what these may import. Knows nothing of pytest.
"""
