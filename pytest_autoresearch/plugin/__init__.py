"""What pytest sees: hooks, options, items and sessions.

The only package that imports pytest. It may import every other one.
"""
