"""Benchmarks: ratios of times measured side by side in one run (`make bench`); what they print is theirs to check."""
