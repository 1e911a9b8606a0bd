"""The chapter synthesis: speed and accuracy of all runs of all studies together."""
