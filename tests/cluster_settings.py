"""Settings of a SLURM cluster, as the profile has them and filled in."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import yaml

from medscale.config.layers import merge
from medscale.resources.machines import Cluster
from training_runs import ROOT

SITE: dict[str, Any] = yaml.safe_load(
    (ROOT / "profiles/slurm/site.yaml").read_text(encoding="utf-8")
)
COMPLETE = merge(SITE, {"cluster": {"account": "physics", "partition": "gpu"}})
OURS = Cluster(
    account="physics", partition="gpu", max_minutes=600, safety=2.0, least_minutes=20, least_mb=1000
)
IN_IMAGE = SimpleNamespace(
    deployment_method=[SimpleNamespace(name="APPTAINER")], apptainer_args="--nv"
)
