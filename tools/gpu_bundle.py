"""Packs source and packages for `make test-gpu` and `make bench-gpu` without a network.

The archive holds the tracked source without lock files, the packages of tools/gpu-packages.txt for
Python 3.12 on x86-64 (unpacked wheels), and `run.sh`, which puts both on the paths of a command:

    tar xf medscale-gpu.tar.gz && medscale-gpu/run.sh make test-gpu bench-gpu

PyTorch, torchvision, timm, NumPy, pandas and the like are the machine's own.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIST, LOCK = ROOT / "tools" / "gpu-packages.txt", ROOT / "requirements.lock"
NAME = "medscale-gpu"
PYTHON = "3.12"
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
NO_WHEEL = {"connection-pool": "connection_pool"}  # packages and their folder of pure Python
# Parts of wheels that are left out: pulp's solvers of other systems; codecs of imagecodecs, which
# loads each at its first use, for formats that no dataset has (AVIF, JPEG XL, SZ3).
LEFT_OUT = re.compile(
    r"pulp/solverdir/cbc/(win|osx|linux/(arm64|i32))/"
    r"|imagecodecs\.libs/lib(aom|avif|jxl|SZ3c)|imagecodecs/_(avif|jpegxl|sz3)\."
)
LARGEST_MB = 60
RUN = """#!/bin/sh
# Runs a command with the packages of this folder: ./run.sh make test-gpu bench-gpu
here=$(cd "$(dirname "$0")" && pwd)
export PATH="$here/bin:$PATH" PYTHONPATH="$here/medscale/src:$here/medscale:$here/site"
export MEDSCALE_BUNDLE=1  # nothing is set up
cd "$here/medscale" && exec "$@"
"""
PROGRAMS = {
    "python": 'exec python3 "$@"',
    "snakemake": 'exec python3 -m snakemake "$@"',
    "medscale": 'exec python3 -m medscale.cli "$@"',
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the archive."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / f"{NAME}.tar.gz")
    parser.add_argument("--wheels", type=Path, help="folder of wheels, which is then not filled")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="medscale-bundle-") as temporary:
        folder = Path(temporary) / NAME
        wheels = options.wheels or download(pinned(), Path(temporary) / "wheels")
        unpack(wheels, folder / "site")
        copy_source(folder / "medscale")
        write_programs(folder)
        with tarfile.open(options.out, "w:gz") as archive:
            archive.add(folder, NAME)
    size = options.out.stat().st_size / 1e6
    if size > LARGEST_MB:
        options.out.unlink()
        sys.exit(f"gpu-bundle: {size:.0f} MB are more than {LARGEST_MB}; shorten {LIST.name}")
    print(
        f"{options.out.name}: {size:.1f} MB. On the other machine: tar xf {options.out.name}, and"
    )
    print(f"{NAME}/run.sh make test-gpu bench-gpu")


def pinned() -> list[str]:
    """Return the listed packages with the versions of requirements.lock."""
    versions = dict(re.findall(r"^([\w.-]+)==([^\s;\\\\]+)", LOCK.read_text(), flags=re.M))
    names = [line for line in LIST.read_text().splitlines() if line and line[0] != "#"]
    if missing := [name for name in names if name not in versions]:
        sys.exit(f"gpu-bundle: {', '.join(missing)} of {LIST.name} are not in {LOCK.name}")
    return [f"{name}=={versions[name]}" for name in names if name not in NO_WHEEL]


def download(requirements: Sequence[str], folder: Path) -> Path:
    """Fetch wheels for the other machine; return their folder."""
    line = [str(ROOT / ".tools" / "bin" / "python"), "-m", "pip", "download", "-qq", "--no-deps"]
    line += ["--only-binary=:all:", "--python-version", PYTHON, "--dest", str(folder)]
    line += [part for platform in PLATFORMS for part in ("--platform", platform)]
    if subprocess.run([*line, *requirements]).returncode:
        sys.exit("gpu-bundle: the wheels cannot be fetched; is a Python package index reachable?")
    return folder


def unpack(wheels: Path, site: Path) -> None:
    """Unpack wheels, and copy the packages that have none from this environment."""
    site.mkdir(parents=True)
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as content:
            parts = [name for name in content.namelist() if not LEFT_OUT.match(name)]
            content.extractall(site, parts)  # noqa: S202 (wheels of the locked requirements)
    for folder in NO_WHEEL.values():
        spec = importlib.util.find_spec(folder)
        if spec is None or spec.origin is None:
            sys.exit(f"gpu-bundle: {folder} is not installed here; run `make setup`")
        shutil.copytree(
            Path(spec.origin).parent, site / folder, ignore=shutil.ignore_patterns("__pycache__")
        )


def copy_source(folder: Path) -> None:
    """Copy the tracked files without lock files, as they are in the working tree."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"],  # noqa: S607 (the git that the user calls)
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if not name.endswith(".lock") and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)


def write_programs(folder: Path) -> None:
    """Write run.sh and the programs that the rules and the Makefile call."""
    (folder / "bin").mkdir()
    texts = {f"bin/{name}": f"#!/bin/sh\n{text}\n" for name, text in PROGRAMS.items()}
    for name, text in {"run.sh": RUN, **texts}.items():
        (folder / name).write_text(text, encoding="utf-8")
        (folder / name).chmod(0o755)


if __name__ == "__main__":
    main()
