"""The engine: everything that decides the weights of a network."""
