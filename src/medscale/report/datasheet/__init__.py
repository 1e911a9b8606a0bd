"""The chapter datasheet."""
