"""The operating system: text, files, locks, signals, temporary folders, processes.

May import nothing but errors.
"""
