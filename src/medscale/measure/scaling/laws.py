"""Laws of scaling fitted to throughputs: Amdahl, Gustafson and Universal Scalability.

A law gives C(n), the throughput of n devices relative to one, with one or two parameters:

- Amdahl (1967): n / (1 + s (n - 1)), where s is the serial part of the work;
- Gustafson (1988): n - a (n - 1), where a is the part of a device's time that does not grow with
  the work;
- Universal Scalability (Gunther 2008): n / (1 + s (n - 1) + k n (n - 1)), where k is the cost of
  pairwise coordination. Beyond some number of devices, throughput falls.

The throughput of one device is also a fitted parameter, so that the measurement on one device has
no more weight than the others.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import optimize, stats

from medscale.base.errors import MedscaleError
from medscale.measure.scaling.speedup import LEVEL

Name = Literal["amdahl", "gustafson", "usl"]
# A law needs one more number of devices than it has parameters; the throughput of one device is one
# of the parameters.
FEWEST: dict[Name, int] = {"amdahl": 3, "gustafson": 3, "usl": 4}
_STEPS = 200
_GRID = np.concatenate([[0.0], np.geomspace(1e-6, 1.0, _STEPS)])
_ROUNDS = 3  # of the search for an interval: one on ``_GRID``, and two on finer grids


@dataclass(frozen=True)
class Value:
    """A fitted or derived number with its 95 % interval; infinite if the law sets no bound."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Fit:
    """A law fitted to one series."""

    law: Name  # name of the law
    serial: Value  # s (or a), the serial part
    crosstalk: Value  # k of Universal Scalability; 0 for the other laws
    single: float  # fitted throughput of one device, in the unit of the series
    best: Value  # number of devices with the highest throughput; infinite if more are always faster
    half: Value  # number of devices at which efficiency falls to one half
    error: float  # root mean square of the relative deviations
    # Akaike's criterion for small samples (Hurvich & Tsai 1989), which compares the laws of a
    # series; infinite for too few points
    aicc: float

    def capacity(self, devices: np.ndarray) -> np.ndarray:
        """Return the throughput relative to one device, in the shape of ``devices``."""
        return capacity(self.law, devices, self.serial.value, self.crosstalk.value)


def capacity(
    law: Name, devices: np.ndarray, serial: np.ndarray | float, crosstalk: np.ndarray | float
) -> np.ndarray:
    """Return C(n) of a law; the arguments are broadcast."""
    n = np.asarray(devices, float)
    if law == "gustafson":
        return n - serial * (n - 1)
    return n / (1 + serial * (n - 1) + crosstalk * n * (n - 1))


def fit(law: Name, devices: Sequence[float], throughput: Sequence[float]) -> Fit:
    """Fit a law by least squares on the logarithms of throughput.

    The intervals are those of the profile likelihood (Bates & Watts 1988, ch. 6). They contain the
    values of all parameter pairs whose sum of squares is at most 1 + F(0.95; 1, N - p) / (N - p)
    times the smallest one, for p parameters. The search begins with 0 and a logarithmic grid from
    1e-6 to 1, and is repeated on finer grids around the pairs that it gives.

    Args:
        law: a key of ``FEWEST``.
        devices: number of devices of each measurement (a replicate), shape N.
        throughput: measured throughputs in any unit, shape N.

    Raises:
        MedscaleError: for fewer different numbers of devices than the law needs, or for values that
            are not above 0.
    """
    n, logs = np.asarray(devices, float), np.log(_positive(throughput))
    if len(np.unique(_positive(devices))) < FEWEST[law]:
        raise MedscaleError(
            f"{law} is fitted to at least {FEWEST[law]} different numbers of devices, not "
            f"{len(np.unique(n))}"
        )
    serial, crosstalk = np.meshgrid(_GRID, _GRID if law == "usl" else [0.0], indexing="ij")
    surface = _squares(law, n, logs, serial, crosstalk)
    start = np.unravel_index(surface.argmin(), surface.shape)
    best, smallest_sum = _minimum(law, n, logs, np.array([serial[start], crosstalk[start]]))
    freedom = len(n) - (3 if law == "usl" else 2)
    limit = smallest_sum * (1 + stats.f.ppf(LEVEL, 1, freedom) / freedom) + 1e-12
    near = _region(law, n, logs, best, limit)

    def value(function: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Value:
        values = function(*near)
        at_best = float(function(best[:1], best[1:])[0])
        return Value(at_best, float(values.min()), float(values.max()))

    return Fit(
        law=law,
        serial=value(lambda s, _k: s),
        crosstalk=value(lambda _s, k: k),
        single=float(np.exp(np.mean(logs - np.log(capacity(law, n, *best))))),
        best=value(lambda s, k: _best(law, s, k)),
        half=value(lambda s, k: _half(law, s, k)),
        error=float(np.sqrt(smallest_sum / len(n))),
        aicc=_aicc(smallest_sum, len(n), 3 if law == "usl" else 2),
    )


def fits(devices: Sequence[float], throughput: Sequence[float]) -> dict[Name, Fit]:
    """Fit all laws for which there are enough different numbers of devices."""
    count = len(np.unique(devices))
    return {law: fit(law, devices, throughput) for law in FEWEST if count >= FEWEST[law]}


def preferred_law(fits_by_law: dict[Name, Fit]) -> Fit | None:
    """Return the law with the smallest AICc, and of several the one with the fewest parameters."""
    order = list(FEWEST)
    return min(fits_by_law.values(), key=lambda f: (f.aicc, order.index(f.law)), default=None)


def serial_fraction(speedup: float, devices: float) -> float:
    """Return the serial part that a speedup on n > 1 devices implies (Karp & Flatt, CACM 1990).

    It is negative for a speedup above n.
    """
    return (1 / speedup - 1 / devices) / (1 - 1 / devices)


def _positive(values: Sequence[float]) -> np.ndarray:
    array = np.asarray(values, float)
    if not len(array) or not np.isfinite(array).all() or array.min() <= 0:
        raise MedscaleError("a scaling law is fitted to numbers of devices and throughputs above 0")
    return array


def _squares(
    law: Name, n: np.ndarray, logs: np.ndarray, serial: np.ndarray, crosstalk: np.ndarray
) -> np.ndarray:
    """Return the sum of squares for the best throughput of one device.

    The logarithm of that throughput is the mean deviation, which is subtracted.
    """
    serial, crosstalk = np.asarray(serial)[..., None], np.asarray(crosstalk)[..., None]
    with np.errstate(divide="ignore"):
        deviations = logs - np.log(capacity(law, n, serial, crosstalk))
    centered = deviations - deviations.mean(axis=-1, keepdims=True)
    return np.asarray((centered**2).sum(axis=-1))


def _minimum(
    law: Name, n: np.ndarray, logs: np.ndarray, start: np.ndarray
) -> tuple[np.ndarray, float]:
    """Return the parameters near ``start`` with the smallest sum of squares, and that sum."""

    def squares(parameters: np.ndarray) -> float:
        return float(_squares(law, n, logs, parameters[0], parameters[1]))

    bounds = [(0, 1.0), (0, 1.0 if law == "usl" else 0.0)]
    optimum = optimize.minimize(squares, start, method="L-BFGS-B", bounds=bounds)
    best = min(start, optimum.x, key=squares)  # the start, if the search gained nothing
    return best, squares(best)


def _region(
    law: Name, n: np.ndarray, logs: np.ndarray, best: np.ndarray, limit: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return both parameters of the pairs whose sum of squares is at most ``limit``.

    An interval is often narrower than a step of the first grid. Each further grid therefore covers
    the pairs of the last one and a step more at each end.
    """
    axes = [_GRID, _GRID if law == "usl" else np.zeros(1)]
    for _ in range(_ROUNDS):
        serial, crosstalk = np.meshgrid(*axes, indexing="ij")
        inside = _squares(law, n, logs, serial, crosstalk) <= limit
        near = np.append(serial[inside], best[0]), np.append(crosstalk[inside], best[1])
        axes = [_finer(axis, values) for axis, values in zip(axes, near, strict=True)]
    return near


def _finer(axis: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return a grid from one step of ``axis`` below all values to one step above them."""
    first = max(0, int(np.searchsorted(axis, values.min())) - 1)
    last = min(len(axis) - 1, int(np.searchsorted(axis, values.max(), side="right")))
    return np.unique(np.linspace(axis[first], axis[last], _STEPS))


def _best(law: Name, serial: np.ndarray, crosstalk: np.ndarray) -> np.ndarray:
    """Return the number of devices with the highest throughput; 1 if more gain nothing at all."""
    without_crosstalk = np.where(serial < 1, np.inf, 1.0)
    if law != "usl":
        return without_crosstalk
    with np.errstate(divide="ignore", invalid="ignore"):
        peak = np.maximum(1.0, np.sqrt((1 - serial) / crosstalk))
    return np.where(crosstalk > 0, peak, without_crosstalk)


def _half(law: Name, serial: np.ndarray, crosstalk: np.ndarray) -> np.ndarray:
    """Solve C(n) / n = 1/2: the positive root of k n² + (s - k) n - (1 + s) = 0, or its limits."""
    with np.errstate(divide="ignore", invalid="ignore"):
        if law == "gustafson":
            return np.where(serial > 0.5, serial / (serial - 0.5), np.inf)
        linear = 1 + 1 / serial
        b = serial - crosstalk
        root = (-b + np.sqrt(b**2 + 4 * crosstalk * (1 + serial))) / (2 * crosstalk)
    return np.where(crosstalk > 0, root, linear)


def _aicc(squares: float, points: int, parameters: int) -> float:
    k = parameters + 1  # the variance is a parameter as well
    if points - k - 1 <= 0:
        return float("inf")
    return float(
        points * np.log(max(squares, 1e-300) / points) + 2 * k + 2 * k * (k + 1) / (points - k - 1)
    )
