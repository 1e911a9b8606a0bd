"""The parallel strategies: one module each, listed in ``registry``."""
