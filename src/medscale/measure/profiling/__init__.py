"""Profiling of training steps: traces of a steady-state window, and their analysis."""
