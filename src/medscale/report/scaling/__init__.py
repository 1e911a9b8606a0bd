"""The chapter scaling: speedup laws, and the cost until a target."""
