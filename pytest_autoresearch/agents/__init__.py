"""Who proposes: the chain of agents, and each of them."""
