"""The folder of compiled networks, which the replicates and restarts of a run share."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from medscale.base.code import package_digest
from medscale.base.errors import MedscaleError
from medscale.base.files import digest


def keep(run: Path, device: torch.device) -> Path:
    """Let PyTorch keep compiled code in a folder of a run; return the folder.

    Its name is a digest of the package's code, PyTorch's version and the card, so that another
    machine or version has another folder. Raises MedscaleError if the folder is a link or belongs
    to another user, since PyTorch runs the code that it finds there.

    Args:
        run: the folder of the run, which holds those of its replicates.
        device: the device that is compiled for.
    """
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    key = digest([package_digest(), torch.__version__, torch.version.cuda, card])[:16]
    folder = run / "compiled" / key
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for place in (folder.parent, folder):
        if place.is_symlink() or place.stat().st_uid != os.geteuid():
            raise MedscaleError(
                f"{place} is a link, or belongs to another user, who could change the code in it; "
                "remove it, or set recipe.compile: off"
            )
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder.resolve())
    return folder
