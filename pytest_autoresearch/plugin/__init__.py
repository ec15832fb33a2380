"""What pytest sees: hooks, options, items and sessions. The only package that imports pytest."""
