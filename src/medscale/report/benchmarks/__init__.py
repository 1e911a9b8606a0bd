"""The chapter benchmarks."""
