"""Tools of all rooms: the user error, files, log, text, paths, durations, digests, provenance."""
