"""Sandboxed processes: policy, launch, supervisor, and the enforcers bubblewrap, Landlock and seccomp."""
