"""What happens to a campaign should not happen to what it has found."""
