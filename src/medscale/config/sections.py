"""The section of a study, with its evaluation: each setting with its limits."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from medscale.base.errors import MedscaleError
from medscale.base.section import Seed, Strict, Unique, unit
from medscale.config.benchmarks import Benchmarks, Profile
from medscale.config.comparisons import Convergence, Sweep
from medscale.config.run_name import RunName
from medscale.data.settings import Datasheet, Preprocess, Source, Split
from medscale.engine.plan import Augment, Detect, Model, Parallel, Recipe
from medscale.engine.run import RunSpec, is_detector

ROUNDING = 0.01  # tolerance of a sum of prevalences, which are often rounded


def positive_classes(classes: Sequence[str]) -> list[int]:
    """Return the codes of the classes to detect: the last of two classes, or all of more."""
    return [len(classes) - 1] if len(classes) == 2 else list(range(len(classes)))


class Evaluate(Strict):
    """Evaluation of predictions beyond the metrics that each run has."""

    specificities: Unique[float] = Field(
        [0.9, 0.95],
        min_length=1,
        description="operating points: thresholds are chosen on validation images for these "
        "specificities",
    )
    prevalence: dict[str, Annotated[float, Field(gt=0, lt=1)]] = Field(
        {},
        description="share of the intended patients who have a class, by class, for predictive "
        "values and net benefit; a class without one: its share of the test images",
    )
    miss_cost: float = Field(
        1.0, gt=0, description="cost of a missed case in units of a false alarm"
    )
    margin: Annotated[float, unit("percentage points")] = Field(
        2.0, gt=0, description="difference in accuracy within which runs count as equally good"
    )
    subgroups: Unique[str] = Field(
        ["age", "sex", "view", "source"],
        description="columns of the index by which metrics are computed for each group of "
        "patients; missing columns are left out",
    )
    age_bands: Unique[Annotated[float, unit("years")]] = Field(
        [40, 60, 80], description="lower limits of the age groups"
    )
    smallest: Annotated[int, unit("images")] = Field(
        10, ge=1, description="a subgroup with fewer images is not evaluated"
    )
    gradcam: Literal["all", "baseline", "none"] = Field(
        "all",
        description="runs whose results have heat maps of where the network looked (Grad-CAM), "
        "which takes some seconds a run",
    )

    @model_validator(mode="after")
    def _between_0_and_1(self) -> Self:
        if not all(0 < value < 1 for value in self.specificities):
            raise ValueError(f"specificities lie between 0 and 1, not {self.specificities}")
        if self.age_bands != sorted(self.age_bands):
            raise ValueError(f"age_bands must ascend, not {self.age_bands}")
        return self

    def wrong_prevalence(self, classes: Sequence[str]) -> str:
        """Return why ``prevalence`` does not fit the classes of a study; empty if it fits."""
        positive = [classes[code] for code in positive_classes(classes)]
        if unknown := [name for name in self.prevalence if name not in positive]:
            return (
                f"evaluate.prevalence names {', '.join(map(repr, unknown))}; "
                f"state the prevalence of: {', '.join(positive)}"
            )
        total = sum(self.prevalence.values())
        if total > 1 + ROUNDING:
            return (
                f"the values of evaluate.prevalence sum to {total:g}: they are shares of the same "
                "patients, of whom each has one class, so that their sum is 1 at most"
            )
        if set(self.prevalence) == set(classes) and total < 1 - ROUNDING:
            return (
                f"evaluate.prevalence has all classes, but sums to {total:g}: the sum must be 1, "
                "since each patient has one class; correct the values, or leave a class out"
            )
        return ""


class External(Strict):
    """A set of labelled images of another origin, on which trained runs are evaluated."""

    title: str = Field(min_length=1, description="name of the set, in figures and in the paper")
    source: Source = Field(description="the folder of its images, as that of a study")
    runs: Unique[RunName] | None = Field(
        None, min_length=1, description="runs to evaluate on it; null: the baseline"
    )


class Checklist(Strict):
    """Answers to the items of reporting checklists, which the paper prints (docs/claims.md)."""

    unanswered: Literal["stop", "print"] = Field(
        "stop",
        description="an item without an answer: stop the paper at full scale, or print it as not "
        "answered; your own images: print",
    )
    answers: dict[str, str] = Field(
        {}, description="your answers by item, such as `claim.12`: text, or `not done, because …`"
    )


class Study(Strict):
    """A dataset with its preprocessing, model, recipe and runs."""

    title: str = Field(min_length=1, description="name of the study in the paper")
    source: Source
    datasheet: Datasheet = Field(
        Datasheet.of_defaults(),
        description="answers for your own images; a dataset kind has its own",
    )
    classes: Unique[Annotated[str, Field(min_length=1)]] | None = Field(
        None,
        min_length=2,
        description="names of the classes in order; of two, the last is the positive one. null: "
        "those of the dataset",
    )
    class_titles: dict[str, Annotated[str, Field(min_length=1)]] = Field(
        {},
        description="title of a class, by its name, for figures, tables, paper and page; a class "
        "without a title has its name there. Files keep the names",
    )
    split: Split = Split.of_defaults()
    preprocess: Preprocess = Preprocess.of_defaults()
    augment: Augment = Augment.of_defaults()
    model: Model
    models: dict[str, Model] = Field({}, description="settings of further models that runs name")
    recipe: Recipe = Recipe.of_defaults()
    parallel: Parallel = Parallel.of_defaults()
    seeds: Unique[Seed] | None = Field(
        None, min_length=1, description="seeds of this study; null: the general `seeds`"
    )
    detect: Detect | None = None
    evaluate: Evaluate = Evaluate.of_defaults()
    benchmarks: Benchmarks = Benchmarks.of_defaults()
    profile: Profile = Profile.of_defaults()
    checklist: Checklist = Checklist.of_defaults()
    tensorboard: bool = Field(
        False, description="write the history also as TensorBoard logs, below the run's folder"
    )
    variant_of: str | None = Field(
        None, description="study of the same raw images, in whose section this one is shown"
    )
    external: list[External] = Field(
        [], description="sets of other origins; each becomes an entry of `studies`"
    )
    external_of: str | None = Field(
        None, description="set by `external`: the study whose runs are evaluated on these images"
    )
    convergence: Convergence = Convergence.of_defaults()
    sweep: Sweep | None = Field(
        None, description="search for the learning rate; each point becomes an entry of `studies`"
    )
    sweep_of: str | None = Field(
        None, description="set by `sweep`: the study whose learning rate this point changes"
    )
    baseline: RunName = Field(
        "serial_1cpu", description="run that the accuracy of the other runs is compared with"
    )
    runs: Unique[RunName] = Field(
        min_length=1,
        description="runs in the paper; `snakemake results/<study>/<run>` trains any other",
    )

    @model_validator(mode="before")
    @classmethod
    def _crop_of_the_images_size(cls, values: Any) -> Any:
        """Give a crop without a size that of the images, at which the whole image is tested."""
        match values:
            case {"augment": {"crop": {**crop}} as augment} if crop.get("size") is None:
                own = values.get("preprocess")
                size = own.get("size") if isinstance(own, dict) else None
                default = Preprocess.model_fields["size"].default
                crop["size"] = size if isinstance(size, int) else default
                return values | {"augment": augment | {"crop": crop}}
        return values

    @model_validator(mode="after")
    def _distinct_titles(self) -> Self:
        if mistake := self.equal_titles(self.classes or list(self.class_titles)):
            raise ValueError(mistake)
        return self

    def equal_titles(self, classes: Sequence[str]) -> str:
        """Return which title or name two of these classes have; empty if none."""
        titles = [self.class_titles.get(name, name) for name in classes]
        if twice := sorted({title for title in titles if titles.count(title) > 1}):
            return f"class_titles: two classes are called {twice[0]!r}; give each its own title"
        return ""

    @model_validator(mode="after")
    def _warm_up_within_training(self) -> Self:
        recipe, formats = self.recipe, self.benchmarks.formats
        epochs = {"recipe.epochs": recipe.epochs} if recipe.steps is None else {}
        if formats is not None and formats.epochs is not None:
            epochs["benchmarks.formats.epochs"] = formats.epochs
        for setting, number in epochs.items():
            if recipe.warmup_epochs > number:
                raise ValueError(
                    f"recipe.warmup_epochs is {recipe.warmup_epochs:g}, but training ends after "
                    f"{number} ({setting}), before its learning rate is reached: lower the first "
                    "or raise the second"
                )
        return self

    @model_validator(mode="after")
    def _prevalence_of_a_class(self) -> Self:
        if self.classes and (mistake := self.evaluate.wrong_prevalence(self.classes)):
            raise ValueError(mistake)
        return self

    @model_validator(mode="after")
    def _valid_runs(self) -> Self:
        for name in (*self.runs, self.baseline, *self.profile.runs):
            try:
                RunSpec.parse(name)
            except MedscaleError as error:
                raise ValueError(str(error)) from None
        if wrong := [key for key, model in self.models.items() if model.name != key]:
            raise ValueError(
                f"models.{wrong[0]}.name is {self.models[wrong[0]].name!r}, but a run whose name "
                f"ends with {wrong[0]} trains {wrong[0]}: give both the same name"
            )
        if self.split.folds is not None:
            self._refuse_with_folds()
        return self

    @model_validator(mode="after")
    def _detectors_in_runs_alone(self) -> Self:
        benchmarks, sweep = self.benchmarks, self.sweep
        exported = benchmarks.export.runs if benchmarks.export else []
        listed = {
            "benchmarks.export.runs": (exported, "`medscale export` writes its file"),
            "convergence.runs": (self.convergence.runs or [], "it has its own recipe"),
            "sweep.runs": (sweep.runs if sweep else [], "it has its own recipe"),
        }
        for setting, (names, reason) in listed.items():
            for name in names:
                if is_detector(_spec(setting, name).model or ""):
                    raise ValueError(f"{setting}: {name} is a detector; {reason}")
        if (formats := benchmarks.formats) is not None:
            spec = _spec("benchmarks.formats.run", formats.run)
            if spec.amp or is_detector(spec.model or ""):
                raise ValueError(
                    f"benchmarks.formats.run: {formats.run} is not a classification without _amp"
                )
        if is_detector(self.model.name) or is_detector(RunSpec.parse(self.baseline).model or ""):
            raise ValueError(
                "a detector is the model of runs such as serial_1gpu_yolov8n, "
                "not of study or baseline"
            )
        return self

    @model_validator(mode="after")
    def _crop_within_the_image(self) -> Self:
        crop = self.augment.crop
        if crop is not None and crop.size > self.preprocess.size:
            raise ValueError(
                f"augment.crop.size is {crop.size}, but images have {self.preprocess.size} pixels "
                "a side (preprocess.size): set a smaller crop, or augment.crop: null"
            )
        return self

    def _refuse_with_folds(self) -> None:
        """Raise ValueError for settings that cross-validation does not have."""
        if self.detection_runs:
            raise ValueError(
                f"split.folds is for classification: remove the run {self.detection_runs[0]}"
            )
        if metadata := [m.name for m in (self.model, *self.models.values()) if m.metadata]:
            raise ValueError(
                f"split.folds is for images alone: remove model.metadata of {metadata[0]}, whose "
                "encoding would differ between the folds"
            )

    @property
    def belongs_to(self) -> str | None:
        """The study that this entry is a variant, an external set or a point of; None: a study."""
        return self.variant_of or self.external_of or self.sweep_of

    @property
    def classifications(self) -> list[str]:
        """Runs of classification, and the baseline."""
        runs = [name for name in self.runs if name not in self.detection_runs]
        return list(dict.fromkeys([*runs, self.baseline]))

    def network(self, run: str) -> str:
        """Return the name of the network that a run trains."""
        return RunSpec.parse(run).model or self.model.name

    @property
    def detection_runs(self) -> list[str]:
        """Runs of detection, whose names end with a detector's name."""
        return [name for name in self.runs if is_detector(RunSpec.parse(name).model or "")]


def _spec(setting: str, name: str) -> RunSpec:
    """Return a run's fields; ValueError with the setting if the name is not valid."""
    try:
        return RunSpec.parse(name)
    except MedscaleError as error:
        raise ValueError(f"{setting}: {error}") from None
