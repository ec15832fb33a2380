"""What is stored of a campaign, in git and beside it, and nothing else."""
