"""The export formats by name. To add one, write its module and add it to ``MODULES``."""

from __future__ import annotations

from collections.abc import Iterable

from medscale.base.errors import MedscaleError
from medscale.serve.formats import fp16, int8, onnx, tensorrt
from medscale.serve.formats.format import Benchmarked, Format

MODULES = (onnx, fp16, int8, tensorrt)  # in the order of tables and figures
FORMATS: dict[str, Format] = {module.FORMAT.name: module.FORMAT for module in MODULES}
BENCHMARKED: dict[str, Benchmarked] = {
    name: form.benchmarked for name, form in FORMATS.items() if form.benchmarked is not None
}
PYTORCH_WAYS = ("eager", "compiled")  # ways of running a network without an exported file
ONNX = onnx.FORMAT  # the file in 32 bit, from which all others are converted


def by_name(name: str) -> Format:
    """Return a format.

    Raises:
        MedscaleError: when no format has this name; the message lists the names.
    """
    if name not in FORMATS:
        raise MedscaleError(f"there is no export format {name!r}; there are {', '.join(FORMATS)}")
    return FORMATS[name]


def check_benchmarked(setting: str, names: Iterable[str], further: Iterable[str] = ()) -> None:
    """Check the names of formats that a setting of the configuration lists.

    Args:
        setting: its path in the configuration, for the message.
        names: the listed names.
        further: names that the setting allows besides the formats.

    Raises:
        MedscaleError: for a name that is no format the benchmarks measure.
    """
    allowed = [*further, *BENCHMARKED]
    if unknown := [name for name in names if name not in allowed]:
        raise MedscaleError(f"{setting}: {unknown[0]!r} is unknown; there are {', '.join(allowed)}")


def looks() -> dict[str, int]:
    """Return each way's place in the palette ``report.names.LOOKS``."""
    pytorch = {way: place for place, way in enumerate(PYTORCH_WAYS)}
    return pytorch | {name: shown.look for name, shown in BENCHMARKED.items()}
