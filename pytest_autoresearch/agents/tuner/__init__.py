"""The tuner: a Bayesian optimiser of the constants of a script, without any network."""
