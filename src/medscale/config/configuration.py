"""The study's configuration: config.yaml, its scale overlay and the user's changes, checked against one schema."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from medscale.base.errors import MedscaleError
from medscale.base.section import Strict
from medscale.config.figures import (
    BENCHMARKS,
    FIGURES,
    PROFILES,
    QUALITY_FIGURES,
    QUALITY_TABLES,
    SCALING_FIGURES,
    SCALING_TABLES,
    TABLES,
)
from medscale.config.sections import (
    Study,
)
from medscale.data.kind import check_kind
from medscale.resources.machines import Cluster, Cost, Dask, Node
from medscale.serve.formats.registry import PYTORCH_WAYS, check_benchmarked


class Config(Strict):
    """The whole configuration after overlay and changes."""

    scale: Literal["full", "demo"] = "full"
    workdir: Path = Path(".")
    only: list[str] | None = None
    seeds: list[int] = Field([1, 2, 3], min_length=1)
    stand_in_gpu: bool = Field(
        False, description="demo only: GPU runs are carried out on CPU processes"
    )
    node: Node = Node()
    dask: Dask = Dask()
    cluster: Cluster | None = Field(
        None, description="jobs go through SLURM (profiles/slurm/site.yaml)"
    )
    cost: Cost = Cost()
    studies: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")], Study] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        if self.stand_in_gpu and self.scale != "demo":
            raise ValueError(
                "stand_in_gpu is for scale demo only: at full scale a GPU run needs GPUs"
            )
        for name in self.only or []:
            self.study(name)
        for name, study in self.studies.items():
            try:
                check_kind(study.source.kind)
            except MedscaleError as error:
                raise ValueError(f"studies.{name}.source.kind: {error}") from None
            if self.owner(name) != name and self.owner(self.owner(name)) != self.owner(name):
                raise ValueError(
                    f"studies.{name} uses the images of {self.owner(name)!r}, which are another study's"
                )
        for seeds in (self.seeds, *(study.seeds or [] for study in self.studies.values())):
            if len(set(seeds)) != len(seeds):
                raise ValueError(f"seeds has duplicates: {seeds}")
        return self

    @model_validator(mode="after")
    def _export_formats_exist(self) -> Config:
        # Checked here, not in the section, so that only readers of the whole configuration depend
        # on the registry: a new format must not make shards or trainings again.
        for name, study in self.studies.items():
            setting = f"studies.{name}.benchmarks"
            if (export := study.benchmarks.export) is not None:
                check_benchmarked(f"{setting}.export.formats", export.formats)
            if (inference := study.benchmarks.inference) is not None:
                check_benchmarked(f"{setting}.inference.ways", inference.ways, PYTORCH_WAYS)
        return self

    def study(self, name: str) -> Study:
        """The study of that name.

        Raises:
            MedscaleError: when there is none; the message lists those there are.
        """
        if name not in self.studies:
            raise MedscaleError(
                f"there is no study {name!r}; config.yaml has: {', '.join(self.studies)}"
            )
        return self.studies[name]

    @property
    def active(self) -> list[str]:
        """Names of the studies to carry out, each a section of the paper."""
        return [name for name in self.only or self.studies if self.studies[name].variant_of is None]

    @property
    def titles(self) -> dict[str, str]:
        """Title by study, of variants too."""
        return {name: study.title for name, study in self.studies.items()}

    def owner(self, study: str) -> str:
        """The study whose raw images a study uses: mostly its own."""
        settings = self.study(study)
        return settings.source.of or settings.variant_of or study

    def seeds_of(self, study: str) -> list[int]:
        """Seeds of a study's replicates."""
        return self.study(study).seeds or self.seeds

    def variants(self, study: str) -> list[str]:
        """Names of the variants of a study."""
        return [name for name, settings in self.studies.items() if settings.variant_of == study]

    def figures(self, study: str) -> list[str]:
        """Names of a study's figures."""
        looked = ["gradcam"] if self.study(study).evaluate.gradcam != "none" else []
        return [*FIGURES, *QUALITY_FIGURES, *looked, *SCALING_FIGURES, *self._further(study)]

    def tables(self, study: str) -> list[str]:
        """Names of a study's tables."""
        return [*TABLES, "datasheet", *QUALITY_TABLES, *SCALING_TABLES, *self._further(study)]

    def _further(self, study: str) -> list[str]:
        """What only some studies have a figure and a table of: other splits, detection, benchmarks, profiles."""
        settings = self.studies[study]
        there = {
            "variants": bool(self.variants(study)),
            "detection": bool(settings.detection_runs),
            **{name: getattr(settings.benchmarks, name) is not None for name in BENCHMARKS},
            **dict.fromkeys(PROFILES, bool(settings.profile.runs)),
        }
        return [name for name, wanted in there.items() if wanted]


def load(base: str | Path, changes: dict[str, Any] | None = None) -> Config:
    """Read config.yaml, lay the chosen scale and then the user's changes over it, and check the whole.

    Args:
        base: path of config.yaml.
        changes: what came from ``--configfile`` and ``--config``; its ``scale`` chooses the overlay.

    Raises:
        MedscaleError: naming each key that is wrong, what was found there, and what is allowed.
    """
    tree = _read_yaml(Path(base))
    changes = copy.deepcopy(changes or {})
    scales = tree.pop("scales", {})
    scale = changes.get("scale", tree.get("scale", "full"))
    if scale != "full" and scale not in scales:
        raise MedscaleError(f"there is no scale {scale!r}; there are: full, {', '.join(scales)}")
    if isinstance(changes.get("only"), str):
        changes["only"] = changes["only"].split(",")
    for layer in (scales.get(scale, {}), changes):
        tree = merge(tree, layer)
    studies = {
        name: study for name, study in (tree.get("studies") or {}).items() if study is not None
    }
    tree["studies"] = {name: _inherit(studies, name, base) for name in studies}
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise MedscaleError(_explain(error, base)) from None


def merge(below: Any, above: Any) -> Any:
    """Lay one tree of settings over another; mappings merge, anything else is replaced."""
    if isinstance(below, dict) and isinstance(above, dict):
        return below | {key: merge(below.get(key), value) for key, value in above.items()}
    return copy.deepcopy(above)


def _inherit(
    studies: dict[str, Any], name: str, base: str | Path, seen: tuple[str, ...] = ()
) -> Any:
    """A study takes what it does not say itself from another.

    ``like: other`` gives all but title, source, datasheet and classes; ``variant_of: other`` all but the title.
    """
    study = studies[name]
    if not isinstance(study, dict):
        return study
    study = {"title": name, **study}
    if not (
        key := next((key for key in ("like", "variant_of") if study.get(key) is not None), None)
    ):
        return study
    other, keep = (
        study[key],
        ("title",)
        if key == "variant_of"
        else ("title", "source", "datasheet", "classes", "variant_of"),
    )
    if other not in studies or other in (*seen, name):
        raise MedscaleError(
            f"{base}: studies.{name}.{key} is {other!r}; it must name another study that ends the chain"
        )
    own = {key: value for key, value in study.items() if key != "like"}
    parent = dict(_inherit(studies, other, base, (*seen, name)))
    return merge({key: value for key, value in parent.items() if key not in keep}, own)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MedscaleError(f"{path} does not exist; run from the project's root") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise MedscaleError(
            f"{path}{where}: not valid YAML: {getattr(error, 'problem', error)}"
        ) from None
    if not isinstance(tree, dict):
        raise MedscaleError(f"{path}: expected a mapping of settings, found {type(tree).__name__}")
    return tree


def _explain(error: ValidationError, base: str | Path) -> str:
    lines = [
        f"the configuration ({base} with its overlay and your changes) has {error.error_count()} mistake(s):"
    ]
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"]) or "(whole file)"
        message = item["msg"].removeprefix("Value error, ")
        found = "" if item["type"] in ("missing", "value_error") else f" (found {item['input']!r})"
        if item["type"] == "extra_forbidden":
            message, found = "there is no such setting", ""
        lines.append(f"  {where}: {message}{found}")
    return "\n".join(lines)
