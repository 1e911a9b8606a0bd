"""Training of one replicate, with the same loop for every strategy."""
