"""What a change to a script is: its canonical form, its constants, its size.

May import records and system. No script is run here.
"""
