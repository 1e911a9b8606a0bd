"""The chapter profiling: time and memory of a training step, by kind of work."""
