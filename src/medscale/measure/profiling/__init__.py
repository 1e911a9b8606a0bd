"""Where the time of a training step goes: traces of a steady-state window of any run, and what follows from them."""
