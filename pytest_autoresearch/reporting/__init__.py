"""What a person reads: the terminal and results.tsv."""
