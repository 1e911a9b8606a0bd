"""Measurements besides the runs: benchmarks, profiles, and how training scales."""
