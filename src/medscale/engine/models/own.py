"""This package's own networks: the module of each, readable without PyTorch."""

from __future__ import annotations

# Full names of modules, so that digests of code follow them.
MODULES = {
    "medical_cnn": "medscale.engine.models.medical_cnn",
    "xray_cnn": "medscale.engine.models.small",
    "tiny_cnn": "medscale.engine.models.small",
}
