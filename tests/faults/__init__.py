"""Faults of the machine: whatever fails, what was decided is there, and the campaign goes on."""
