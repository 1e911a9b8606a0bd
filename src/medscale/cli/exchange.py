"""Commands that write results in formats of other programs: track and publish."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medscale.base import paths
from medscale.base.code import shown_path
from medscale.base.console import plain
from medscale.cli.completion import results_like
from medscale.cli.options import Result
from medscale.cli.printing import AsJson, print_facts


def track(
    results: Annotated[
        list[Path],
        typer.Argument(help="result folders, results/<study>/<run>", autocompletion=results_like),
    ],
    to: Annotated[Path, typer.Option(help="folder of the store")] = Path("mlruns"),
    as_json: AsJson = False,
) -> None:
    """Record the replicates of results as runs in a file store of MLflow, each once; offline."""
    for folder in results:
        paths.evaluated_result(folder)
    from medscale.exchange.mlflow import track as record

    added, earlier = record(results, to)
    facts = {"store": shown_path(to), "new_runs": added, "present_before": earlier}
    line = f"{plain(shown_path(to))}: {added} new runs, {earlier} present before"
    print_facts(facts, [line], as_json)


def publish(
    result: Result,
    to: Annotated[Path, typer.Option(help="the new folder")],
    seed: Annotated[
        int | None, typer.Option(help="a replicate's seed; default: the best on validation images")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="the study's data folder, whose patients and files are searched for"),
    ] = None,
    licence: Annotated[
        str | None, typer.Option(help="of the weights, as the Hub names it, such as cc-by-4.0")
    ] = None,
    dataset: Annotated[
        list[str] | None, typer.Option(help="the Hub's name of the training data")
    ] = None,
    upload: Annotated[
        str | None, typer.Option(help="OWNER/NAME on the Hub; nothing is uploaded without it")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a trained run as a model folder of the Hugging Face Hub; refuses identifiers."""
    paths.usable_result(result)
    from medscale.exchange.hugging_face import publish as write

    lines = list(
        write(
            result, to, seed=seed, data=data, licence=licence, datasets=dataset or (), upload=upload
        )
    )
    print_facts({"folder": to, "sentences": lines}, map(plain, lines), as_json)
