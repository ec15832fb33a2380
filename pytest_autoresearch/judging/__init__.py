"""Verdicts from noisy scores. Pure: no input, no output.

May import records and system.
"""
