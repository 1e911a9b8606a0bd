"""What decides the weights of a network: runs, plans, networks, strategies and the training loop."""
