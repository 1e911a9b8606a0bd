"""Scaling of training time with devices: speedup, laws of scaling, cost, recommendations."""
