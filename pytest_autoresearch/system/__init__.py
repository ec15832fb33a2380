"""The operating system: channel, files, locks, logs, signals, temporary folders."""
