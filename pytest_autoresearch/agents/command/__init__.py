"""A coding agent that is a command line."""
