"""Series of runs that differ only in their number of devices, with the run on one device."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import pandas as pd

from medscale.engine.run import RunSpec
from medscale.measure.scaling.laws import Fit, Name, fits, preferred, serial_fraction
from medscale.measure.scaling.speedup import relative

Held = Literal["global", "per_device", "other", ""]


@dataclass(frozen=True)
class Point:
    """The measured times of one run."""

    run: str  # name of the run
    seconds: tuple[float, ...]  # of an epoch, of each replicate
    images: float = 1.0  # of an epoch; 1 if unknown
    global_batch: int | None = None  # images of a step; None if unknown
    work: str = ""  # key that must be equal for times to be compared
    stand_in: bool = False  # whether CPU processes stood in for GPUs
    format: str = ""  # number format; empty if unknown
    held: Held = ""  # the batch that a publication held constant, if ``global_batch`` is unknown

    @property
    def spec(self) -> RunSpec:
        """Return the fields of the run's name."""
        return RunSpec.parse(self.run)


@dataclass(frozen=True)
class Series:
    """Runs with one strategy, precision, batch and network on rising numbers of devices."""

    points: tuple[Point, ...]  # by number of devices; the first is on one device
    # the constant batch: the global one (strong scaling), that of a device (weak scaling), another,
    # or unknown ("")
    held: Held

    @property
    def name(self) -> str:
        """Return the name of the run on most devices without their number: "ddp_amp_gpu"."""
        spec = self.points[-1].spec
        kept = spec.name.split("_")
        place = next(i for i, part in enumerate(kept) if part == f"{spec.devices}{spec.device}")
        return "_".join([*kept[:place], spec.device, *kept[place + 1 :]])

    @property
    def spec(self) -> RunSpec:
        """Return the fields of the run on most devices."""
        return self.points[-1].spec

    @property
    def stand_in(self) -> bool:
        """Tell whether CPU processes stood in for GPUs."""
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
        """Return the law with the best ``laws.preferred`` criterion, if any can be fitted."""
        return preferred(self.laws())

    def table(self) -> pd.DataFrame:
        """Compute the speedup over the run on one device.

        Returns:
            A row for each run: ``run, format, devices, replicates, seconds, seconds_low,
            seconds_high`` (range), ``throughput``; ``speedup`` and ``efficiency`` with the ends of
            ``speedup.ratio``; ``serial_fraction`` (Karp & Flatt 1990; NaN on one device).
        """
        single, rows = self.points[0], []
        for point in self.points:
            n, seconds = point.spec.devices, list(point.seconds)
            speedup = relative(single.seconds, seconds, same=point is single)
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
                    **{f"speedup{end}": value for end, value in speedup.items()},
                    **{f"efficiency{end}": value / n for end, value in speedup.items()},
                    "serial_fraction": serial_fraction(speedup[""], n) if n > 1 else float("nan"),
                }
            )
        return pd.DataFrame(rows)


def gather(points: Sequence[Point]) -> list[Series]:
    """Return the series of the runs on several devices, in the order of the points.

    A series needs a run on one device: with the same strategy, or plain DDP, or serial, and with
    the same precision, batch, network and work, so that neither mixed precision nor other images
    count as speedup.
    """
    by_run = {point.run: point for point in points}
    groups: dict[RunSpec, list[Point]] = {}
    for point in points:
        if point.spec.devices > 1:
            groups.setdefault(_family(point.spec), []).append(point)
    series = []
    for members in groups.values():
        single = _single(members[0], by_run)
        if single is not None:
            same = [point for point in members if point.work == single.work]
            ordered = (single, *sorted(same, key=lambda point: point.spec.devices))
            series += [Series(ordered, _held(ordered))] if same else []
    return series


def without_one_device(points: Sequence[Point], series: Sequence[Series]) -> list[str]:
    """Return the runs on several devices that no series contains, as there is no run on one."""
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
    """Fit a series once for the figure, the tables and the sentences."""
    return fits(devices, rates)


def _family(spec: RunSpec) -> RunSpec:
    """Return a key that is equal for runs that differ only in their number of devices."""
    return spec.model_copy(update={"devices": 0})


def _single(point: Point, by_run: dict[str, Point]) -> Point | None:
    spec, kept = point.spec, {"amp", "batch", "model", "device"}
    fields = spec.model_dump(include=kept) | {"devices": 1}
    strategies = dict.fromkeys([spec.strategy if spec.stages == 1 else "ddp", "ddp", "serial"])
    names = [RunSpec(strategy=strategy, **fields).name for strategy in strategies]
    candidates = [by_run[name] for name in names if name in by_run]
    return next((single for single in candidates if single.work == point.work), None)


def _held(points: Sequence[Point]) -> Held:
    batches = [point.global_batch for point in points]
    if None in batches:
        return points[-1].held
    if len(set(batches)) == 1:
        return "global"
    per_device = {
        batch // point.spec.replicas for batch, point in zip(batches, points, strict=True) if batch
    }
    return "per_device" if len(per_device) == 1 else "other"
