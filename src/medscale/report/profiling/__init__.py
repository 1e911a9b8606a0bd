"""The chapter profiling."""
