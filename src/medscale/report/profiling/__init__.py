"""The chapter profiling: what the time and the memory of a step are spent on."""
