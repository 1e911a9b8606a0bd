"""Series of runs that differ only in their number of devices, with the run on one device."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import pandas as pd

from medscale.engine.run import RunSpec
from medscale.measure.scaling.laws import Fit, Name, fits, preferred_law, serial_fraction
from medscale.measure.scaling.speedup import relative, with_suffixes

ConstantBatch = Literal["global", "per_device", "other", ""]


@dataclass(frozen=True)
class Point:
    """The measured times of one run."""

    run: str  # name of the run
    seconds: tuple[float, ...]  # seconds per epoch of each replicate
    images: float = 1.0  # images of an epoch; 1 if unknown
    global_batch: int | None = None  # images of a step; None if unknown
    work: str = ""  # key that must be equal for times to be compared
    stand_in: bool = False  # whether CPU processes stood in for GPUs
    format: str = ""  # number format; empty if unknown
    # which batch size a publication kept constant, if ``global_batch`` is unknown
    constant_batch: ConstantBatch = ""

    @property
    def spec(self) -> RunSpec:
        """Return the fields of the run's name."""
        return RunSpec.parse(self.run)


@dataclass(frozen=True)
class Series:
    """Runs with one strategy, precision, batch and network on rising numbers of devices."""

    points: tuple[Point, ...]  # by number of devices; the first is on one device
    # which batch size is constant: the global one (strong scaling), that of a device (weak
    # scaling), neither ("other"), or unknown ("")
    constant_batch: ConstantBatch

    @property
    def name(self) -> str:
        """Return the name of the run on most devices without their number: "ddp_amp_gpu"."""
        spec = self.points[-1].spec
        parts = spec.name.split("_")
        place = next(i for i, part in enumerate(parts) if part == f"{spec.devices}{spec.device}")
        return "_".join([*parts[:place], spec.device, *parts[place + 1 :]])

    @property
    def spec(self) -> RunSpec:
        """Return the fields of the run on most devices."""
        return self.points[-1].spec

    @property
    def stand_in(self) -> bool:
        """Whether CPU processes stood in for GPUs."""
        return any(point.stand_in for point in self.points)

    def measurements(self) -> tuple[list[float], list[float]]:
        """Return devices and throughput (images per second) of each replicate of each run."""
        pairs = [(p.spec.devices, p.images / seconds) for p in self.points for seconds in p.seconds]
        devices, rates = zip(*pairs, strict=True)
        return list(devices), list(rates)

    def laws(self) -> dict[Name, Fit]:
        """Fit all laws for which the series has enough different numbers of devices."""
        devices, rates = self.measurements()
        return _fits(tuple(devices), tuple(rates))

    def law(self) -> Fit | None:
        """Return the law with the smallest AICc; None if the series is too short for any law."""
        return preferred_law(self.laws())

    def table(self) -> pd.DataFrame:
        """Compute the speedup over the run on one device.

        Returns:
            One row for each run: ``run, format, devices, replicates``; ``seconds`` per epoch with
            ``seconds_low, seconds_high`` (range over replicates); ``throughput`` (images per
            second); ``speedup`` and ``efficiency`` with the suffixes of ``speedup.ratio``;
            ``serial_fraction`` (Karp & Flatt 1990; NaN on one device).
        """
        single, rows = self.points[0], []
        for point in self.points:
            n, seconds = point.spec.devices, list(point.seconds)
            speedup = relative(single.seconds, seconds, is_base=point is single)
            mean = sum(seconds) / len(seconds)
            rows.append(
                {
                    "run": point.run,
                    "format": point.format,
                    "devices": n,
                    "replicates": len(seconds),
                    "seconds": mean,
                    "seconds_low": min(seconds),
                    "seconds_high": max(seconds),
                    "throughput": point.images / mean,
                    **with_suffixes("speedup", speedup),
                    **with_suffixes("efficiency", speedup, n),
                    "serial_fraction": serial_fraction(speedup[""], n) if n > 1 else float("nan"),
                }
            )
        return pd.DataFrame(rows)


def gather(points: Sequence[Point]) -> list[Series]:
    """Return the series of the runs on several devices, in the order of the points.

    A series needs a run on one device, with the same strategy, plain DDP, or serial. Its precision,
    batch, network and work must be those of the series, so that neither mixed precision nor other
    images count as speedup.
    """
    by_run = {point.run: point for point in points}
    groups: dict[RunSpec, list[Point]] = {}
    for point in points:
        if point.spec.devices > 1:
            groups.setdefault(_family(point.spec), []).append(point)
    series = []
    for members in groups.values():
        singles = (_single(point, by_run) for point in members)
        single = next((point for point in singles if point is not None), None)
        if single is not None:
            comparable = [point for point in members if point.work == single.work]
            ordered = (single, *sorted(comparable, key=lambda point: point.spec.devices))
            series.append(Series(ordered, _constant_batch(ordered)))
    return series


def without_one_device(points: Sequence[Point], series: Sequence[Series]) -> list[str]:
    """Return the runs on several devices that have no series, since no run on one device fits."""
    inside = {point.run for member in series for point in member.points}
    return [point.run for point in points if point.spec.devices > 1 and point.run not in inside]


def point_of(summary: dict[str, Any]) -> Point:
    """Return the epoch times of a run from the content of its summary.json."""
    clock = summary["timing"]
    work = [
        summary["marks"],
        summary["backend"],
        summary["format"],
        summary["model"],
        clock["train_images"],
        clock["threads_per_rank"],
    ]
    return Point(
        run=summary["run"]["name"],
        seconds=tuple(clock["seconds_per_epoch"]["values"]),
        images=clock["train_images"],
        global_batch=clock["global_batch"],
        work=str(work),
        stand_in=summary["marks"]["stand_in"],
        format=summary["format"],
    )


@cache
def _fits(devices: tuple[float, ...], rates: tuple[float, ...]) -> dict[Name, Fit]:
    """Fit the laws once; figure, tables and sentences share the result."""
    return fits(devices, rates)


def _family(spec: RunSpec) -> RunSpec:
    """Return a key that is equal for runs that differ only in their number of devices."""
    return spec.model_copy(update={"devices": 0})


def _single(point: Point, by_run: dict[str, Point]) -> Point | None:
    spec, shared_fields = point.spec, {"amp", "batch", "model", "device"}
    fields = spec.model_dump(include=shared_fields) | {"devices": 1}
    strategies = dict.fromkeys([spec.strategy if spec.stages == 1 else "ddp", "ddp", "serial"])
    names = [RunSpec(strategy=strategy, **fields).name for strategy in strategies]
    candidates = [by_run[name] for name in names if name in by_run]
    return next((single for single in candidates if single.work == point.work), None)


def _constant_batch(points: Sequence[Point]) -> ConstantBatch:
    batches = [point.global_batch for point in points]
    if None in batches:
        return points[-1].constant_batch
    if len(set(batches)) == 1:
        return "global"
    per_device = {
        batch // point.spec.replicas for batch, point in zip(batches, points, strict=True) if batch
    }
    return "per_device" if len(per_device) == 1 else "other"
