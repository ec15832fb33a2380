"""Every way to cheat that has been seen or thought of, tried for real."""
