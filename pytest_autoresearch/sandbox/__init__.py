"""Sandboxed processes: policy, launch, process, supervisor, and the enforcers bubblewrap, Landlock, seccomp.

May import records and system.
"""
