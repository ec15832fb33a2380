"""A sealed model becomes a score, in a process that never ran the trial's code."""
