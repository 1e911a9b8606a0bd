"""The configuration: config.yaml, the overlay of its scale and the user's changes, validated."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from medscale.base.code import ROOT
from medscale.base.errors import MedscaleError
from medscale.base.section import FilePath, Seed, Strict, Unique
from medscale.base.suggest import suggestion
from medscale.config.fault import SettingFault
from medscale.config.layers import Layer, Layers
from medscale.config.mistakes import NetworkCheck, explain, unknown_networks
from medscale.config.sections import Study
from medscale.data.kind import check_kind
from medscale.data.settings import Dask
from medscale.engine.run import RunSpec
from medscale.resources.machines import Cluster, Cost, Node
from medscale.serve.formats.registry import ONNX, PYTORCH_WAYS, check_benchmarked

CHANGES = "command line"  # origin of changes that no known file has


class Config(Strict):
    """The whole configuration after overlay and changes."""

    scale: Literal["full", "demo"] = Field(
        "full",
        description="full: the settings as they are; demo: with the changes of `scales.demo`",
    )
    workdir: FilePath = Field(
        Path("."), description="folder of all outputs; a relative path begins at the project's root"
    )
    only: Unique[str] | None = Field(
        None, min_length=1, description="names of the active studies; null: all"
    )
    seeds: Unique[Seed] = Field(
        [1, 2, 3],
        min_length=1,
        description="seeds of random numbers; each run is trained once with each seed",
    )
    claims: FilePath = Field(
        Path("claims.yaml"),
        description="file of statements that `medscale verify` and the paper check "
        "(docs/claims.md); a relative path begins at the project's root",
    )
    stand_in_gpu: bool = Field(
        False, description="demo only: GPU runs are carried out on CPU processes"
    )
    node: Node = Node.of_defaults()
    dask: Dask = Dask.of_defaults()
    cluster: Cluster | None = Field(
        None, description="jobs go through SLURM (profiles/slurm/site.yaml)"
    )
    cost: Cost = Cost.of_defaults()
    studies: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")], Study] = Field(
        min_length=1, description="the studies by name"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.stand_in_gpu and self.scale != "demo":
            text = "stand_in_gpu is for scale demo only: at full scale a GPU run needs GPUs"
            raise SettingFault(("stand_in_gpu",), text)
        for name in self.only or []:
            if (owner := self.study(name).belongs_to) is not None:
                text = f"{name} is carried out together with {owner}; name {owner}"
                raise SettingFault(("only",), text)
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
    def _distinct_titles(self) -> Self:
        # Figures and tables over all studies tell studies apart by their titles.
        names: dict[str, str] = {}
        for name in self.only or self.studies:
            study = self.study(name)
            if study.belongs_to is None and (first := names.setdefault(study.title, name)) != name:
                text = f"{study.title!r} is the title of {first}, too: give it another"
                raise SettingFault(("studies", name, "title"), text)
        return self

    @model_validator(mode="after")
    def _export_formats_exist(self) -> Self:
        # Checked here, not in the section, so that only readers of the whole configuration depend
        # on the registry: a new format must not make shards or trainings again.
        for name, study in self.studies.items():
            lists: dict[tuple[str, str], tuple[list[str], Iterable[str]]] = {}
            if (export := study.benchmarks.export) is not None:
                lists["export", "formats"] = export.formats, ()
            if (inference := study.benchmarks.inference) is not None:
                lists["inference", "ways"] = inference.ways, PYTORCH_WAYS
            for setting, (names, further) in lists.items():
                path = ("studies", name, "benchmarks", *setting)
                try:
                    check_benchmarked(".".join(path), names, further)
                except MedscaleError as error:
                    raise SettingFault(path, str(error)) from None
            if inference is not None and export is not None:
                possible = {*PYTORCH_WAYS, ONNX.name, *export.formats}
                if lacking := [way for way in inference.ways if way not in possible]:
                    raise SettingFault(
                        ("studies", name, "benchmarks", "inference", "ways"),
                        f"{lacking[0]} is not exported: add it to benchmarks.export.formats, or "
                        "leave it out here",
                    )
        return self

    def study(self, name: str) -> Study:
        """Return the study of that name.

        Raises MedscaleError if there is none; the message lists the studies.
        """
        if name not in self.studies:
            studies = [study for study, section in self.studies.items() if not section.sweep_of]
            raise MedscaleError(
                f"there is no study {name!r}; {suggestion(name, self.studies)}"
                f"there are: {', '.join(studies)}"
            )
        return self.studies[name]

    @property
    def active(self) -> list[str]:
        """Names of the active studies, each a section of the paper."""
        return [name for name in self.only or self.studies if not self.studies[name].belongs_to]

    @property
    def titles(self) -> dict[str, str]:
        """Title by study, of variants too."""
        return {name: study.title for name, study in self.studies.items()}

    def owner(self, study: str) -> str:
        """Return the study whose raw images a study uses, mostly itself."""
        settings = self.study(study)
        return settings.source.of or settings.variant_of or settings.sweep_of or study

    def raw(self, study: str) -> Path:
        """Return the folder of a study's raw images; relative paths count from the root."""
        path = self.study(owner := self.owner(study)).source.path
        return (ROOT / (path or Path(self.workdir, "data", "raw", owner))).resolve()

    def data_of(self, study: str) -> str:
        """Return the study whose index and shards a study uses, mostly itself."""
        return self.study(study).sweep_of or study

    def seeds_of(self, study: str) -> list[int]:
        """Return the seeds of a study's replicates."""
        return self.study(study).seeds or self.seeds

    def replicates_of(
        self, study: str, seeds: Sequence[int] | None = None
    ) -> list[tuple[int, int | None]]:
        """Return seed and fold of each replicate of a study's runs; the fold is None without any.

        The replicates of a seed follow each other. ``seeds``: None for those of the study.
        """
        folds = self.study(study).split.folds
        numbers = [None] if folds is None else range(1, folds + 1)
        seeds = self.seeds_of(study) if seeds is None else seeds
        return [(seed, fold) for seed in seeds for fold in numbers]

    def convergence_seeds(self, study: str) -> list[int]:
        """Return the seeds of the replicates whose convergence is compared."""
        return self.study(study).convergence.seeds or self.seeds_of(study)

    def convergence_runs(self, study: str) -> list[str]:
        """Return the runs whose convergence is compared, the baseline first.

        Without a list in the configuration they are those that train the baseline's network.
        """
        settings = self.study(study)
        runs = settings.convergence.runs or [
            run
            for run in settings.classifications
            if settings.network(run) == settings.network(settings.baseline)
        ]
        return list(dict.fromkeys([settings.baseline, *runs]))

    def trained_seeds(self, study: str, run: str) -> list[int]:
        """Return the seeds that a run is trained with, those for its convergence at the end."""
        is_compared = run in self.compared_anew(study)
        further = self.convergence_seeds(study) if is_compared else []
        return list(dict.fromkeys([*self.seeds_of(study), *further]))

    def compared_anew(self, study: str) -> list[str]:
        """Return the runs that the comparison of convergence adds trainings to."""
        settings = self.study(study).convergence
        is_configured = settings.runs is not None or settings.seeds is not None
        return self.convergence_runs(study) if is_configured else []

    def externals(self, study: str) -> list[str]:
        """Return the names of a study's external sets."""
        return [name for name, settings in self.studies.items() if settings.external_of == study]

    def points(self, study: str) -> list[str]:
        """Return the names of the points of a study's sweep that differ from the study."""
        return [name for name, settings in self.studies.items() if settings.sweep_of == study]

    def variants(self, study: str) -> list[str]:
        """Return the names of a study's variants."""
        return [name for name, settings in self.studies.items() if settings.variant_of == study]


def accept_network(_name: str) -> None:
    """Accept any name of a network, for commands that train nothing."""


def load(
    base: str | Path,
    changes: dict[str, Any] | None = None,
    files: Sequence[str | Path] = (),
    check_network: NetworkCheck = accept_network,
) -> Config:
    """Read config.yaml, apply the chosen scale and then the user's changes, and validate the whole.

    Raises MedscaleError, naming each wrong key, its value, and the allowed values.

    Args:
        base: path of config.yaml.
        changes: settings of ``--configfile`` and ``--config``; their ``scale`` chooses the overlay.
        files: the YAML files that the changes come from, which messages name.
        check_network: raises MedscaleError for the name of a network that does not exist.
    """
    return validate(Layers(base, [Layer(CHANGES, changes or {})]), files, check_network)


def validate(
    layers: Layers, files: Sequence[str | Path] = (), check_network: NetworkCheck = accept_network
) -> Config:
    """Return the configuration that layers of settings make; see ``load``."""
    tree = layers.whole()
    _refuse_surrogates(layers.base, tree)
    errors: list[Exception] = list(layers.faults)
    try:
        config = Config.model_validate(tree)
        measured = {*config.cost.networks}
        if not errors and not any(unknown_networks(_networks(config), measured, check_network)):
            return config
    except (ValidationError, MedscaleError) as error:
        errors.append(error)
    raise MedscaleError(
        explain(layers, Config, errors, [Path(file) for file in files], check_network)
    )


def _networks(config: Config) -> set[str]:
    """Return the names of all networks that the configuration names."""
    studies = config.studies.values()
    runs = (RunSpec.parse(run).model for study in studies for run in study.runs)
    models = (model.name for study in studies for model in (study.model, *study.models.values()))
    return {name for name in (*runs, *models) if name is not None}


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
