"""The chapter inference: ways of running a trained network."""
