"""The study as a Workflow Run RO-Crate: files, the code and inputs that made them, validation."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from medscale.base.errors import MedscaleError

if TYPE_CHECKING:
    from medscale.workflow.graph import Graph


def export(
    graph: Graph,
    out: Path,
    *,
    request: Collection[str] = (),
    agent: str | None = None,
    check: bool = False,
) -> tuple[int, Counter[str]]:
    """Write the study's crate as a folder, or as an archive where ``out`` ends in .zip.

    The crate is written completely or not at all. Raises MedscaleError when something is missing,
    cannot be written, must not leave the machine, or the crate is not valid.

    Args:
        graph: the study, whose paper is made.
        out: folder or archive; an existing crate is replaced.
        request: kinds of files to pack besides records (``kinds.ON_REQUEST``).
        agent: name of who ran the study, to be published with it.
        check: refuse a crate that does not conform to its profiles.

    Returns:
        Number of files, and how many were left out by kind.
    """
    from medscale.base.files import atomic
    from medscale.base.paths import CRATE, new_folder
    from medscale.report.result.folder import whole_folder
    from medscale.workflow.crate import manifest
    from medscale.workflow.crate.check import problems
    from medscale.workflow.crate.describe import Description
    from medscale.workflow.crate.pack import check_disclosure, pack

    if out.suffix != ".zip":
        new_folder(out, CRATE)
    with tempfile.TemporaryDirectory(prefix="medscale-crate-") as scratch:
        zipped = out.suffix == ".zip"
        with whole_folder(Path(scratch) / "crate" if zipped else out) as folder:
            left_out = pack(graph, folder, request)
            manifest.write(folder)
            Description(folder, graph.config, agent).write(left_out)
            check_disclosure(graph, folder, request)
            if check and (wrong := problems(folder)):
                raise MedscaleError("the crate is not valid:\n  " + "\n  ".join(wrong))
            files = sum(path.is_file() for path in folder.rglob("*"))
        if zipped:
            archive = shutil.make_archive(f"{scratch}/archive", "zip", Path(scratch) / "crate")
            with atomic(out) as temporary:
                shutil.copyfile(archive, temporary)
    return files, left_out
