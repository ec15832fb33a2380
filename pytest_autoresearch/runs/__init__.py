"""One run of an experiment, from its start to its measurement. The scorer is handed in."""
