"""The export formats by name. A new one is a module here and one line of ``MODULES``."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module

from medscale.base.errors import MedscaleError
from medscale.base.suggest import suggestion
from medscale.serve.formats.format import Benchmarked, Format

# In the order of tables and figures; full names, so that digests of code follow them.
MODULES = (
    "medscale.serve.formats.onnx",
    "medscale.serve.formats.fp16",
    "medscale.serve.formats.int8",
    "medscale.serve.formats.tensorrt",
)
FORMATS: dict[str, Format] = {
    form.name: form for form in (import_module(name).FORMAT for name in MODULES)
}
BENCHMARKED: dict[str, Benchmarked] = {
    name: form.benchmarked for name, form in FORMATS.items() if form.benchmarked is not None
}
# Ways of running a network without an exported file, and their places in ``report.names.LOOKS``.
PYTORCH_WAYS = {"eager": 0, "compiled": 1, "captured": 8, "captured_compiled": 9}
ONNX = FORMATS["onnx"]  # the file in 32 bit, from which all others are converted


def by_name(name: str) -> Format:
    """Return a format; MedscaleError when no format has this name; the message lists the names."""
    if name not in FORMATS:
        raise MedscaleError(
            f"there is no export format {name!r}; {suggestion(name, FORMATS)}"
            f"there are {', '.join(FORMATS)}"
        )
    return FORMATS[name]


def check_benchmarked(setting: str, names: Iterable[str], further: Iterable[str] = ()) -> None:
    """Check the names of formats that a setting of the configuration lists.

    Raises MedscaleError for a name that is no format the benchmarks measure.

    Args:
        setting: its path in the configuration, for the message.
        names: the listed names.
        further: names that the setting allows besides the formats.
    """
    allowed = [*further, *BENCHMARKED]
    if unknown := [name for name in names if name not in allowed]:
        raise MedscaleError(f"{setting}: {unknown[0]!r} is unknown; there are {', '.join(allowed)}")


def looks() -> dict[str, int]:
    """Return each way's place in the palette ``report.names.LOOKS``."""
    return PYTORCH_WAYS | {name: entry.look for name, entry in BENCHMARKED.items()}
