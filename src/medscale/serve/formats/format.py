"""The declaration of an export format, and reading and writing the ONNX files of all formats.

Neither this module nor the formats import ONNX or PyTorch before a file is converted, so that the
configuration, the command line and the reports can read the declarations.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medscale.base.errors import MedscaleError
from medscale.base.files import atomic

if TYPE_CHECKING:
    import numpy as np
    from onnx import ModelProto

PIXELS, FEATURES, PROBABILITIES = "pixels", "features", "probabilities"  # inputs and output
IMAGES = "images"  # input in place of PIXELS, where the preprocessing is in the file
BOXES = ("corners", "confidence")  # outputs of a detector
PROPERTY = "medscale"  # key of the metadata that describe the network inside the file

Inputs = dict[str, "np.ndarray"]  # by input name; PIXELS, and FEATURES where the network takes them
Convert = Callable[[Path, Inputs], "ModelProto"]


@dataclass(frozen=True)
class Benchmarked:
    """How the benchmarks `export` and `inference` present a format."""

    title: str  # name in the figure and table of exports
    description: str  # explanation that export.json records
    way: str  # name in the figure and table of inference
    way_description: str  # explanation that inference.json records
    look: int  # place in the palette ``report.names.LOOKS``; 0, 1, 8 and 9 belong to PyTorch


@dataclass(frozen=True)
class Format:
    """A file format of trained networks; its files are named ``<run>.<name>.onnx``."""

    name: str  # in the configuration, in file names and after ``medscale export --to``
    # converts the ONNX file in 32 bit, given its path and calibration inputs; None for the format
    # whose file is the one in 32 bit
    convert: Convert | None = None
    calibrated: bool = False  # whether ``convert`` needs preprocessed images to calibrate on
    # largest difference of an output from PyTorch's; a file that differs by more is refused. None:
    # any finite difference is reported only
    tolerance: float | None = None
    # execution provider of ONNX Runtime that builds an engine from the file when ``medscale
    # export`` runs, and must therefore be available
    engine: str | None = None
    # whether the files of ``medscale export`` take preprocessed images alone. TensorRT compiles
    # networks, and not a preprocessing of images of any size
    preprocessed: bool = False
    # how the benchmarks present the format; None where they do not measure it
    benchmarked: Benchmarked | None = None

    def write(self, source: Path, path: Path, calibration: Inputs | None = None) -> None:
        """Convert the ONNX file in 32 bit, and keep its description.

        Raises MedscaleError when the format needs calibration images and there are none.

        Args:
            source: the file in 32 bit.
            path: the new file.
            calibration: images (and features) of the validation split, never of the test split.
        """
        if self.convert is None:
            raise MedscaleError(f"{self.name} is the ONNX file in 32 bit; nothing is converted")
        inputs = calibration or {}
        if self.calibrated and not len(inputs.get(PIXELS, ())):
            raise MedscaleError(
                f"{self.name} needs images to calibrate on; name images that are not in the test"
                " split"
            )
        import onnx

        with quiet():
            model = self.convert(source, inputs)
        save(model, path, description(onnx.load(source, load_external_data=False)))

    def check(self, difference: float, file: str) -> None:
        """Raise a MedscaleError for a file whose outputs are not finite, or differ by too much.

        Args:
            difference: largest difference of its outputs from PyTorch's.
            file: its name, for the message.
        """
        if not math.isfinite(difference):
            raise MedscaleError(
                f"outputs of {file} are not finite for some image; the network cannot be written"
                f" in format {self.name}"
            )
        if self.tolerance is not None and difference > self.tolerance:
            raise MedscaleError(
                f"outputs of {file} differ from PyTorch's by up to {difference:.3g};"
                f" format {self.name} allows {self.tolerance:g}"
            )


def inputs_of(pixels: np.ndarray, features: np.ndarray | None) -> Inputs:
    """Return images (uint8, n,size,size,3) and features (float32, n,F) by input name."""
    return {PIXELS: pixels} if features is None else {PIXELS: pixels, FEATURES: features}


def description(model: ModelProto) -> str:
    """Return the JSON that describes the network inside an ONNX file of this package."""
    return next(entry.value for entry in model.metadata_props if entry.key == PROPERTY)


def save(model: ModelProto, path: Path, text: str) -> None:
    """Write an ONNX file with ``text`` as its only metadata."""
    import onnx

    del model.metadata_props[:]
    model.metadata_props.add(key=PROPERTY, value=text)
    with atomic(path) as temporary:
        onnx.save(model, temporary)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence exporter and quantizer: their warnings concern their own code, not the network."""
    loggers = [logging.getLogger(name) for name in ("", "torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
