"""One run of an experiment, from its start to its number."""
