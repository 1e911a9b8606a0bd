"""Series of runs that differ in their number of devices alone, with the time on one device that they count from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import pandas as pd

from medscale.engine.run import RunSpec
from medscale.measure.scaling.laws import Fit, Name, fits, preferred, serial_fraction
from medscale.measure.scaling.speedup import ratio

Held = Literal["global", "per_device", "other", ""]


@dataclass(frozen=True)
class Point:
    """The measured times of one run.

    Attributes:
        run: its name.
        seconds: of the same work, a replicate each.
        images: of that work; 1 where it is not known.
        global_batch: images a step; None where it is not known.
        work: what must be equal for times to be compared.
        stand_in: CPU processes stood in for GPUs.
        held: what the publication says was held, where ``global_batch`` is not known.
    """

    run: str
    seconds: tuple[float, ...]
    images: float = 1.0
    global_batch: int | None = None
    work: str = ""
    stand_in: bool = False
    held: Held = ""

    @property
    def spec(self) -> RunSpec:
        """The run's fields."""
        return RunSpec.parse(self.run)


@dataclass(frozen=True)
class Series:
    """Runs of one strategy, precision, batch and network on rising numbers of devices; the first is on one.

    Attributes:
        points: by number of devices.
        held: the global batch (strong scaling), the batch a device (weak scaling), something else, or unknown ("").
    """

    points: tuple[Point, ...]
    held: Held

    @property
    def name(self) -> str:
        """The run on the most devices without their number: "ddp_amp_gpu"."""
        spec = self.points[-1].spec
        kept = spec.name.split("_")
        place = next(i for i, part in enumerate(kept) if part == f"{spec.devices}{spec.device}")
        return "_".join([*kept[:place], spec.device, *kept[place + 1 :]])

    @property
    def spec(self) -> RunSpec:
        """The run on the most devices."""
        return self.points[-1].spec

    @property
    def stand_in(self) -> bool:
        """Whether CPU processes stood in for GPUs."""
        return any(point.stand_in for point in self.points)

    def measurements(self) -> tuple[list[float], list[float]]:
        """Devices and throughput (images a second) of each replicate of each run."""
        pairs = [(p.spec.devices, p.images / seconds) for p in self.points for seconds in p.seconds]
        devices, rates = zip(*pairs, strict=True)
        return list(devices), list(rates)

    def laws(self) -> dict[Name, Fit]:
        """Laws fitted to all replicates; those that the series has too few numbers of devices for are left out."""
        devices, rates = self.measurements()
        return _fits(tuple(devices), tuple(rates))

    def law(self) -> Fit | None:
        """The law that describes the series best for its number of parameters, if any can be fitted."""
        return preferred(self.laws())

    def table(self) -> pd.DataFrame:
        """Speedup against the run on one device, by number of devices.

        Returns:
            ``run, devices, replicates, seconds, seconds_low, seconds_high`` (range), ``throughput``; ``speedup`` and
            ``efficiency`` with the ends of ``speedup.ratio``; ``serial_fraction`` (Karp & Flatt 1990; NaN on one).
        """
        single, rows = self.points[0], []
        for point in self.points:
            n, seconds = point.spec.devices, list(point.seconds)
            against = ratio(list(single.seconds), seconds)
            against = dict.fromkeys(against, 1.0) if point is single else against
            mean = sum(seconds) / len(seconds)
            rows.append(
                {
                    "run": point.run,
                    "devices": n,
                    "replicates": len(seconds),
                    "seconds": mean,
                    "seconds_low": min(seconds),
                    "seconds_high": max(seconds),
                    "throughput": point.images / mean,
                    **{f"speedup{end}": value for end, value in against.items()},
                    **{f"efficiency{end}": value / n for end, value in against.items()},
                    "serial_fraction": serial_fraction(against[""], n) if n > 1 else float("nan"),
                }
            )
        return pd.DataFrame(rows)


def gather(points: Sequence[Point]) -> list[Series]:
    """Series of the runs on several devices that have a counterpart on one, in the order of the points.

    The counterpart is the same strategy on one device, else plain DDP, else serial, with the same precision, batch,
    network and work, so that neither mixed precision nor other images are counted as speedup.
    """
    by_run = {point.run: point for point in points}
    groups: dict[RunSpec, list[Point]] = {}
    for point in points:
        if point.spec.devices > 1:
            groups.setdefault(_family(point.spec), []).append(point)
    found = []
    for members in groups.values():
        single = _single(members[0], by_run)
        if single is not None:
            same = [point for point in members if point.work == single.work]
            ordered = (single, *sorted(same, key=lambda point: point.spec.devices))
            found += [Series(ordered, _held(ordered))] if same else []
    return found


def without_one_device(points: Sequence[Point], found: Sequence[Series]) -> list[str]:
    """Runs on several devices that are in none of the series, for want of a run on one."""
    inside = {point.run for series in found for point in series.points}
    return [point.run for point in points if point.spec.devices > 1 and point.run not in inside]


def point_of(summary: dict[str, Any]) -> Point:
    """The times of an epoch of a run, from its summary.json."""
    clock = summary["timing"]
    work = [
        summary["marks"],
        summary["backend"],
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
    )


@cache
def _fits(devices: tuple[float, ...], rates: tuple[float, ...]) -> dict[Name, Fit]:
    """The same fits for the figure, the tables and the sentences, made once."""
    return fits(devices, rates)


def _family(spec: RunSpec) -> RunSpec:
    """The same for runs that differ in their number of devices alone."""
    return spec.model_copy(update={"devices": 0})


def _single(point: Point, by_run: dict[str, Point]) -> Point | None:
    spec, kept = point.spec, {"amp", "batch", "model", "device"}
    fields = spec.model_dump(include=kept) | {"devices": 1}
    strategies = dict.fromkeys([spec.strategy if spec.stages == 1 else "ddp", "ddp", "serial"])
    names = [RunSpec(strategy=strategy, **fields).name for strategy in strategies]
    there = [by_run[name] for name in names if name in by_run]
    return next((one for one in there if one.work == point.work), None)


def _held(points: Sequence[Point]) -> Held:
    batches = [point.global_batch for point in points]
    if None in batches:
        return points[-1].held
    if len(set(batches)) == 1:
        return "global"
    each = {
        batch // point.spec.replicas for batch, point in zip(batches, points, strict=True) if batch
    }
    return "per_device" if len(each) == 1 else "other"
