"""Where runs happen.

May import runs, scoring, judging and source, and what these may import.
"""
