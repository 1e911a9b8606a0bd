"""Benchmarks of the package against other software, as ratios within one run (`make bench`)."""
