"""Who proposes: the chain of agents, and each of them.

May import source, judging, sandbox, records and system.
"""
