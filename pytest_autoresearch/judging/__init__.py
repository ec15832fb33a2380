"""Verdicts from noisy scores. Pure: no input, no output."""
