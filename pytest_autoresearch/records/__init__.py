"""Plain data: what a run, a proposal and a trial are. No input, no output."""
