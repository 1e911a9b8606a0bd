"""Export formats: one module declares one format; `registry` lists them."""
