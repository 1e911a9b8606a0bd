"""Sections of the configuration that determine a study's images: source, split, preprocessing.

They are separate from ``config``, so that a change of another section processes no image again.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from medscale.base.section import FilePath, Pixels, Seconds, Seed, Share, Strict, unit


class Limits(Strict):
    """Limits for decoding one image file; the audit leaves out files that exceed them."""

    megapixels: Annotated[float, unit("megapixels")] = Field(
        50,
        gt=0,
        le=1000,
        description="largest size of an image; the limit of memory follows from it",
    )
    seconds: Seconds = Field(
        20,
        gt=0,
        le=3600,
        description="largest computing time for a file, or for each 100 of its frames",
    )

    @property
    def max_pixels(self) -> int:
        """Largest number of pixels of an image."""
        return int(self.megapixels * 10**6)


LIMITS = Limits.of_defaults()  # also the limits of the service


class Source(Strict):
    """Folder of a study's raw images, and the dataset kind that lists them."""

    kind: str = Field(
        description="dataset kind, which finds images, labels and patients; folder: your own images"
    )
    path: FilePath | None = Field(
        None,
        description="folder of the images; a relative path begins at the project's root; null: "
        "data/raw/<study> in the workdir",
    )
    of: str | None = Field(None, description="another study whose raw images these are")
    synthetic: bool = Field(
        False, description="the raw images are generated (demo) in data/raw/<study>"
    )
    frames: Literal["first", "middle", "all"] = Field(
        "first",
        description="frames that are used of a file with several; all: each frame is an image of "
        "the same patient",
    )
    limits: Limits = LIMITS
    options: dict[str, Any] = Field(
        {}, description="options of the dataset kind, or of its generator of synthetic images"
    )
    table: str | None = Field(
        None,
        min_length=1,
        description="kind folder: path, within the folder, of a CSV file with a line for each "
        "image; null: index.csv where there is one",
    )
    image: str | None = Field(
        None,
        min_length=1,
        description="kind folder: column of the table with the images' paths; null: path",
    )
    label: str | list[str] | None = Field(
        None,
        min_length=1,
        description="kind folder: column of the table with the class, or a regular expression for "
        "the class in the images' names (in their paths, if it contains /), or the columns of the "
        "table that are named like the classes and are 1 for the class of an image; null: the "
        "column label, or the name of the folder",
    )
    patient: str | None = Field(
        None,
        min_length=1,
        description="kind folder: column of the table with the patient, or a regular expression "
        "for the patient in the images' names (in their paths, if it contains /)",
    )
    labels: dict[str, str] = Field(
        {},
        description="of external images: the study's class, by the name of the class in this "
        "folder; for names that differ by more than capitals, spaces and punctuation",
    )

    @model_validator(mode="after")
    def _generated_in_place(self) -> Self:
        if self.synthetic and self.path is not None:
            raise ValueError("a synthetic source has no path: it is generated below the workdir")
        if self.of is not None and self.path is not None:
            raise ValueError("either path or of, not both")
        return self


SPLITS = ("train", "val", "test")  # in the order in which tables list them
FOLD_VALIDATION = 0.1  # default share of the validation images if folds are set


class Split(Strict):
    """Division of images: grouped by patient and near-duplicate, at random, or as published.

    ``source`` holds out one value of a column as the test split; the other images are divided
    into train and val, by groups. ``external`` makes all images test images. With ``folds`` each
    image is a test image in one fold.
    """

    mode: Literal["grouped", "random", "published", "source", "external"] = Field(
        "grouped",
        description="grouped: a patient's images and near-duplicates stay together; random: each "
        "image is drawn alone; published: as the dataset's folders or tables state; source: the "
        "images of one value of `column` are the test split; external: all are test images",
    )
    column: str = Field("source", min_length=1, description="column of the index, for mode source")
    held_out: str | None = Field(
        None,
        min_length=1,
        description="mode source: the value of `column` whose images are the test split; a list in "
        "a variant makes a variant of each value",
    )
    balance: bool = Field(
        False, description="reduce each class to the size of the smallest, at random by `seed`"
    )
    near_duplicates: bool = Field(
        True,
        description="images that look alike (by a perceptual hash) are never in different splits",
    )
    train: Share = Field(
        0.7, gt=0, lt=1, description="share of the images for training; the three shares sum to 1"
    )
    val: Share = Field(
        0.1, gt=0, lt=1, title="Validation", description="share of the images for validation"
    )
    test: Share = Field(0.2, gt=0, lt=1, description="share of the images for the test")
    seed: Seed = Field(
        0, description="seed of the random division; all replicates have the same one"
    )
    folds: int | None = Field(
        None,
        ge=2,
        le=50,
        exclude_if=lambda folds: folds is None,
        description="mode grouped: number of folds of a cross-validation; each fold is the test "
        "split once, for separate networks, and `test` is 1/folds (val: 0.1)",
    )

    @model_validator(mode="before")
    @classmethod
    def _unstated_shares(cls, values: Any) -> Any:
        """Fill in missing shares and those that are null; with k folds the test share is 1/k."""
        if not isinstance(values, dict):
            return values
        shares = {name: values[name] for name in SPLITS if values.get(name) is not None}
        folds = values.get("folds")
        if isinstance(folds, int) and folds >= 2:
            shares.setdefault("test", 1 / folds)
            if "train" not in shares:
                shares.setdefault("val", FOLD_VALIDATION)
            for name in {"train", "val"} - shares.keys():  # one of them at most
                if all(isinstance(share, int | float) for share in shares.values()):
                    shares[name] = 1 - sum(shares.values())
        return {key: value for key, value in values.items() if key not in SPLITS} | shares

    @model_validator(mode="after")
    def _folds_are_grouped(self) -> Self:
        if self.folds is None:
            return self
        if self.mode != "grouped":
            raise ValueError(
                f"folds need mode grouped, not {self.mode}: each image is tested once, by networks "
                "that have not seen its patient"
            )
        if abs(self.test - 1 / self.folds) > 1e-6:
            raise ValueError(
                f"test is {self.test:g}, but each of {self.folds} folds tests 1/{self.folds} of "
                "the images: remove train and test, or set them to null"
            )
        return self

    @model_validator(mode="after")
    def _holds_out(self) -> Self:
        if (self.mode == "source") != (self.held_out is not None):
            raise ValueError("mode source and held_out belong together")
        return self

    @model_validator(mode="after")
    def _sums_to_one(self) -> Self:
        if abs(self.train + self.val + self.test - 1) > 1e-6:
            raise ValueError(
                f"train + val + test must be 1, not {self.train + self.val + self.test:g}"
            )
        return self


class Clahe(Strict):
    """Contrast-limited adaptive histogram equalization on L of LAB (Zuiderveld 1994)."""

    clip_limit: float = Field(
        2.0, gt=0, le=10_000, description="limit of the contrast: a higher one amplifies more noise"
    )
    tiles: int = Field(8, ge=1, le=256, description="tiles per side of the image")


class Preprocess(Strict):
    """Processing of each image before training; all become uint8 RGB of size x size."""

    size: Pixels = Field(224, ge=8, le=8192, description="side of the stored images")
    fit: Literal["stretch", "cover"] = Field(
        "stretch",
        description="stretch: the whole image; cover: short side to size, keep the middle square",
    )
    clahe: Clahe | None = None
    gamma: float | None = Field(
        None, gt=0, le=100, description="gamma correction; above 1 brightens dark parts; null: none"
    )
    median: Pixels | None = Field(
        None,
        ge=3,
        le=255,
        description="side of the median filter's window, an odd number; null: no filter",
    )
    margin: float = Field(
        1.0,
        ge=1,
        le=10_000,
        description="large images are first reduced to 1/2, 1/4 or 1/8, as long as both sides "
        "keep at least margin x size pixels",
    )
    chunk: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="images that a worker preprocesses at a time, into one file; null: a 256th of "
        "all, between 16 and 1024",
    )

    @model_validator(mode="after")
    def _odd_median(self) -> Self:
        if self.median is not None and self.median % 2 == 0:
            raise ValueError("median must be odd")
        return self


class Datasheet(Strict):
    """Answers of a datasheet (Gebru et al. 2021); null is unknown."""

    name: str | None = Field(None, description="name of the dataset")
    origin: str | None = Field(None, description="where and when the images were taken")
    creators: str | None = Field(None, description="who collected the dataset, and for whom")
    citation: str | None = Field(None, description="publication to cite")
    purpose: str | None = Field(None, description="task that the dataset was made for")
    instances: str | None = Field(None, description="what an image shows, and how it was taken")
    labels: str | None = Field(None, description="who labelled the images, and by which rule")
    people: str | None = Field(
        None, description="consent of the people shown, review by an ethics board"
    )
    licence: str | None = Field(None, description="licence or terms of use")
    known_problems: list[str] | None = Field(
        None, description="errors, biases and confounders that are known, one a sentence"
    )


class Dask(Strict):
    """Workers of preprocessing: processes here, a scheduler's address, or SLURM jobs."""

    workers: int | None = Field(
        None,
        ge=1,
        description="processes that check and preprocess images; null: one for each core; "
        "scheduler slurm needs a number",
    )
    scheduler: str = Field(
        "local",
        description="where the workers run: 'local', 'slurm', or the address of a scheduler, such "
        "as tls://host:8786",
    )
    slurm: dict[str, Any] = Field(
        {}, title="SLURM", description="further arguments of dask-jobqueue's SLURMCluster"
    )
    dashboard: bool = Field(
        False, description="Dask's progress page at a free port; all users of the machine see it"
    )

    @model_validator(mode="after")
    def _encrypted(self) -> Self:
        # Anyone who can connect to a scheduler without TLS can run code as its user.
        is_named = self.scheduler in ("local", "slurm")
        if not is_named and not self.scheduler.startswith("tls://"):
            raise ValueError(
                f"scheduler {self.scheduler} is neither local nor slurm, nor an address with "
                "encryption, without which it would run anyone's code: start it with certificates, "
                "and name it as tls://host:port (docs/cluster.md)"
            )
        return self
