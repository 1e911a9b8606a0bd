"""Generators of synthetic raw folders for the demo, and the drawing functions that they share."""
