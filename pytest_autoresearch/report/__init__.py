"""A campaign's history, told to people."""
