"""One run of an experiment, from its start to its measurement.

May import sandbox, records and system. The scorer is handed in.
"""
