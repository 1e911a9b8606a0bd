"""The commands on crates: ``medscale crate`` packs; ``restore`` and ``compare`` are below it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medscale.base import paths
from medscale.base.code import ROOT, shown_path
from medscale.base.errors import MedscaleError
from medscale.base.log import plain
from medscale.cli import results
from medscale.cli.options import out

SHOWN = 5  # names in a line, before the rest is counted
ADVICE = "name a crate: the .zip archive or folder that `medscale crate` wrote"
Packed = Annotated[Path, typer.Argument(help="the crate: .zip archive or folder", metavar="CRATE")]
crate = typer.Typer(invoke_without_command=True)
crate.callback()(results.crate)


@crate.command()
def restore(
    path: Packed,
    to: Annotated[
        Path | None, typer.Option(help="new folder; default: work/restored in the project's folder")
    ] = None,
) -> None:
    """Lay a crate out so that `snakemake paper` makes its report without images and GPUs.

    Files are checked against the crate's checksums. Code in the crate is not run: the report is
    made by the code of this checkout.
    """
    source = paths.existing(path, ADVICE)
    from medscale.workflow.crate.restore import restore as lay_out

    folder = to or ROOT / "work" / "restored"
    restored = lay_out(source, folder)
    name = shown_path(folder)
    out.print(
        plain(f"{name}: {restored.files} files of {', '.join(restored.studies)}"), style="bold"
    )
    if restored.left_out:
        listed = _listed(restored.left_out)
        out.print(plain(f"left out, because they show images and are not in the crate: {listed}"))
    if restored.code:
        listed = _listed(restored.code)
        out.print(plain(f"numbers can differ: {len(restored.code)} files of code do: {listed}"))
    full = name if folder.resolve().is_relative_to(ROOT) else str(folder.resolve())
    out.print("make the report, in the project's folder, then compare it with the crate's:")
    out.print(plain(f"  snakemake --cores all paper --config workdir={full}"))
    out.print(plain(f"  medscale crate compare {path} {name}"))


@crate.command()
def compare(
    path: Packed,
    folder: Annotated[Path, typer.Argument(help="the folder that it was restored to")],
) -> None:
    """Compare figures, tables and facts of a crate with those made from it, byte by byte."""
    source = paths.existing(path, ADVICE)
    paths.existing(folder, "name the folder that the crate was restored to")
    from medscale.workflow.crate.restore import compare as compare_with

    result = compare_with(source, folder)
    out.print(plain(f"equal, byte by byte: {len(result.equal)} files of the report"))
    if result.left_out:
        out.print(plain(f"left out with the images: {_listed(result.left_out)}"))
    differ = [f"{len(result.different)} differ: {_listed(result.different)}"] * bool(
        result.different
    )
    differ += [f"{len(result.absent)} are not made: {_listed(result.absent)}"] * bool(result.absent)
    if differ:
        raise MedscaleError(f"the report in {shown_path(folder)} is another: {'; '.join(differ)}")


def _listed(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
