"""What is stored of a campaign, in git and beside it, and nothing else.

May import source, judging, records and system.
"""
