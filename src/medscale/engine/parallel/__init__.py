"""Processes and strategies: launch by torchrun, the world of ranks, and how a strategy wraps a plain module."""
