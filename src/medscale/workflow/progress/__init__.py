"""Progress of a running study: expected times, display in the terminal, `medscale status`."""
