"""Metrics with intervals from the predictions of finished runs; knows nothing of training."""
