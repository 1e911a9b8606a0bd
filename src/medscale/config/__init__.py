"""The configuration: sections of config.yaml, its overlays, and the plan of a run."""
