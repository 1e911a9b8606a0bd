"""Processes of a run, and the strategies that spread a network over them."""
