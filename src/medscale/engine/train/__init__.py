"""Training: one loop for every strategy, its recipe, checkpoints, clock and records."""
