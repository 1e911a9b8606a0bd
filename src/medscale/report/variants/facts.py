"""Facts of the chapter on variants: accuracy of each run as configured and in each variant."""

from collections.abc import Mapping, Sequence
from typing import Any

from medscale.report.names import label
from medscale.report.result.reading import Result


def facts(
    titles: Mapping[str, str], study: str, results: Sequence[Result], changed: Mapping[str, bool]
) -> dict[str, Any]:
    """Return the facts of a study's variants.

    ``results``: result folders of the study and its variants; those of the study come first.
    """
    runs: dict[str, dict[str, Any]] = {}
    for result in results:
        name, score = result.summary["study"], result.score("accuracy")
        accuracy = {key: score[key] for key in ("mean", "low", "high")}
        if name == study:
            own = {"label": label(result.name), "accuracy": accuracy, "variants": []}
            runs[result.name] = own
            continue
        variant = {"title": titles[name], "collapsed": result.collapsed}
        runs[result.name]["variants"].append(variant | {"accuracy": accuracy})
    return {"runs": list(runs.values()), "changed": dict(changed)}
