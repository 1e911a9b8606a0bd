"""The chapter loading: ways of loading images for training."""
