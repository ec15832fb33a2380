"""Claude, asked through Anthropic's API."""
