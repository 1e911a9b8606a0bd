"""Tools of all rooms: the user error, files, log, text, paths, digests of code, provenance."""
