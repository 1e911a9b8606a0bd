#!/bin/sh
# Test of the image, run inside it in an empty folder: are all tools present, and does a study run
# without a network?
set -eu
python - <<'PYTHON'
import re
import socket
from importlib.metadata import version
from pathlib import Path

lock = Path("/opt/medscale/requirements.lock").read_text()
pins = re.findall(r"^([A-Za-z0-9_.-]+)(?:\[[^]]*\])?==([^ ;\\]+)", lock, re.M)
wrong = [f"{name} {version(name)} instead of {pin}" for name, pin in pins if version(name) != pin]
assert pins and not wrong, f"not as requirements.lock says: {wrong}"
import cv2, dask, medscale, sklearn, timm, torch, torchvision  # noqa: E401, F401

assert medscale.__file__.startswith("/opt/medscale/src/"), medscale.__file__
with socket.socket() as probe:
    probe.settimeout(2)
    network = probe.connect_ex(("192.0.2.1", 9)) != 101  # 101: network unreachable
print(f"{len(pins)} packages as locked; torch {torch.__version__}; network {'on' if network else 'off'}")
PYTHON
/scif/apps/serve/scif/runscript --help >/dev/null
latexmk -version | sed -n '/./{p;q}'
snakemake --version
small='studies={"glaucoma": {"source": {"options": {"unique": 48}}, "recipe": {"epochs": 1}}}'
snakemake --quiet rules reason host --snakefile /opt/medscale/Snakefile --config scale=demo workdir="$PWD/study" 'seeds=[1]' "$small" -- results/glaucoma/ddp_2cpu
python - <<'PYTHON'
import json
from pathlib import Path

run = json.loads(Path("study/runs/glaucoma/ddp_2cpu/seed1/environment.json").read_text())
print(f"trained in {run['container']['file'] or 'a container'}, commit {run['commit']}")
PYTHON
