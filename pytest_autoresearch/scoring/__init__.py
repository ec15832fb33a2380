"""A sealed model becomes a score.

May import sandbox, records and system.
"""
