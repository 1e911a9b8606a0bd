"""What every room uses: the user error, files, progress, durations, digests of code, provenance."""
