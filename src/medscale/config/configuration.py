"""The configuration: config.yaml, the overlay of its scale and the user's changes, validated."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from medscale.base.errors import MedscaleError
from medscale.base.section import FilePath, Seed, Strict, Unique
from medscale.config.sections import Study
from medscale.data.kind import check_kind
from medscale.data.settings import Dask
from medscale.resources.machines import Cluster, Cost, Node
from medscale.serve.formats.registry import PYTORCH_WAYS, check_benchmarked

# Settings that `like: other` takes from the other study: its runs and what is about them. Network,
# recipe and preprocessing suit the other study's images, and come from the defaults instead.
LIKE = ("runs", "baseline", "seeds", "models", "parallel", "evaluate")


class Config(Strict):
    """The whole configuration after overlay and changes."""

    scale: Literal["full", "demo"] = "full"
    workdir: FilePath = Path(".")
    only: Unique[str] | None = Field(None, min_length=1)
    seeds: Unique[Seed] = Field([1, 2, 3], min_length=1)
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
                    f"studies.{name} uses the images of {self.owner(name)!r}, "
                    "which are another study's"
                )
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
        """Return the study of that name.

        Raises MedscaleError if there is none; the message lists the studies.
        """
        if name not in self.studies:
            raise MedscaleError(
                f"there is no study {name!r}; config.yaml has: {', '.join(self.studies)}"
            )
        return self.studies[name]

    @property
    def active(self) -> list[str]:
        """Names of the active studies, each a section of the paper."""
        return [name for name in self.only or self.studies if self.studies[name].variant_of is None]

    @property
    def titles(self) -> dict[str, str]:
        """Title by study, of variants too."""
        return {name: study.title for name, study in self.studies.items()}

    def owner(self, study: str) -> str:
        """Return the study whose raw images a study uses, mostly itself."""
        settings = self.study(study)
        return settings.source.of or settings.variant_of or study

    def seeds_of(self, study: str) -> list[int]:
        """Return the seeds of a study's replicates."""
        return self.study(study).seeds or self.seeds

    def variants(self, study: str) -> list[str]:
        """Return the names of a study's variants."""
        return [name for name, settings in self.studies.items() if settings.variant_of == study]


def load(base: str | Path, changes: dict[str, Any] | None = None) -> Config:
    """Read config.yaml, apply the chosen scale and then the user's changes, and validate the whole.

    Raises MedscaleError, naming each wrong key, its value, and the allowed values.

    Args:
        base: path of config.yaml.
        changes: settings of ``--configfile`` and ``--config``; their ``scale`` chooses the overlay.
    """
    tree = _read_yaml(Path(base))
    changes = copy.deepcopy(changes or {})
    if not isinstance(changes, dict):
        raise MedscaleError(f"the changes are no mapping of settings: {changes!r}")
    scales = tree.pop("scales", {})
    scale = changes.get("scale", tree.get("scale", "full"))
    if scale not in ("full", *scales):
        raise MedscaleError(f"there is no scale {scale!r}; there are: full, {', '.join(scales)}")
    if isinstance(changes.get("only"), str):
        changes["only"] = changes["only"].split(",")
    for layer in (scales.get(scale, {}), changes):
        tree = merge(tree, layer)
    defaults, listed = tree.pop("defaults", {}), tree.get("studies") or {}
    _refuse_no_mapping(base, "defaults", defaults)
    _refuse_no_mapping(base, "studies", listed)
    studies = {name: study for name, study in listed.items() if study is not None}
    for name, study in studies.items():
        _refuse_no_mapping(base, f"studies.{name}", study)
    tree["studies"] = {name: _complete(studies, name, defaults, base) for name in studies}
    _refuse_surrogates(base, tree)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise MedscaleError(_explain(error, base)) from None


def merge(below: Any, above: Any) -> Any:
    """Lay one tree of settings over another: mappings are merged, other values replaced."""
    if isinstance(below, dict) and isinstance(above, dict):
        return below | {key: merge(below.get(key), value) for key, value in above.items()}
    return copy.deepcopy(above)


def _refuse_surrogates(base: str | Path, value: Any, setting: str = "") -> None:
    r"""Refuse text that no file in UTF-8 can hold, such as YAML's escape \ud800."""
    if isinstance(value, dict):
        for key, part in value.items():
            _refuse_surrogates(base, str(key), setting)
            _refuse_surrogates(base, part, f"{setting}.{key}" if setting else str(key))
    elif isinstance(value, list | tuple):
        for part in value:
            _refuse_surrogates(base, part, setting)
    elif isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise MedscaleError(
            f"{base}: {setting}: {value!r} has a surrogate, which is no character: remove it"
        )


def _refuse_no_mapping(base: str | Path, setting: str, value: Any) -> None:
    if not isinstance(value, dict):
        raise MedscaleError(f"{base}: {setting} must be a mapping of settings, not {value!r}")


def _complete(
    studies: dict[str, Any],
    name: str,
    defaults: dict[str, Any],
    base: str | Path,
    seen: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Return a study with the settings that it takes from another study and from the defaults.

    ``variant_of: other`` takes all settings but the title. ``like: other`` takes those of ``LIKE``.
    A study that is like another, or whose images are a folder, takes all others from ``defaults``.
    """
    study = {"title": str(name), **studies[name]}
    like, variant_of = study.pop("like", None), study.get("variant_of")
    if like is not None and variant_of is not None:
        raise MedscaleError(f"{base}: studies.{name} has like and variant_of; give one of them")
    parent: dict[str, Any] = {}
    for key, other in (("like", like), ("variant_of", variant_of)):
        if other is None:
            continue
        if not isinstance(other, str) or other not in studies or other in (*seen, name):
            raise MedscaleError(
                f"{base}: studies.{name}.{key} is {other!r}; "
                "it must name another study that ends the chain"
            )
        parent = _complete(studies, other, defaults, base, (*seen, name))
        parent = {k: v for k, v in parent.items() if (k != "title" if key != "like" else k in LIKE)}
    source = study.get("source")
    is_folder = isinstance(source, dict) and source.get("kind") == "folder"
    if variant_of is None and (like is not None or is_folder):
        parent = merge(_fitting(defaults, study), parent)
    return dict(merge(parent, study))


def _fitting(defaults: dict[str, Any], study: dict[str, Any]) -> dict[str, Any]:
    """Return the defaults without the options of a network that the study replaces."""
    own, model = study.get("model"), defaults.get("model")
    names = [part.get("name") if isinstance(part, dict) else None for part in (own, model)]
    replaced = names[0] is not None and names[0] != names[1]
    return {key: value for key, value in defaults.items() if key != "model" or not replaced}


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
    except ValueError as error:  # not UTF-8, or a number of too many digits
        raise MedscaleError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(tree, dict):
        raise MedscaleError(f"{path}: expected a mapping of settings, found {type(tree).__name__}")
    return tree


def _explain(error: ValidationError, base: str | Path) -> str:
    lines = [
        f"the configuration ({base} with its overlay and your changes) "
        f"has {error.error_count()} mistake(s):"
    ]
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"]) or "(whole file)"
        message = item["msg"].removeprefix("Value error, ")
        value = "" if item["type"] in ("missing", "value_error") else f" (found {item['input']!r})"
        if item["type"] == "extra_forbidden":
            message, value = "there is no such setting", ""
        lines.append(f"  {where}: {message}{value}")
    return "\n".join(lines)
