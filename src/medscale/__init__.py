"""medscale: how far parallel training takes medical imaging, and at what cost in accuracy."""

__version__ = "0.1.0"
