"""How a process is kept from everything that it is not given.

May import records and system.
"""
