"""`medscale export`: write a trained run as one checked ONNX file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from medscale.base.errors import MedscaleError
from medscale.base.extras import require
from medscale.base.log import log
from medscale.base.paths import new_file
from medscale.base.text import listed
from medscale.data.images import Unreadable
from medscale.data.prepare import PreparedImage
from medscale.data.settings import Preprocess
from medscale.engine.formats import NumberFormat
from medscale.serve import export as onnx_export
from medscale.serve import inputs, runtime
from medscale.serve.calibration import Calibration
from medscale.serve.export import Exportable
from medscale.serve.formats.format import FEATURES, IMAGES, PIXELS, Format, Inputs, inputs_of
from medscale.serve.formats.registry import ONNX, by_name
from medscale.serve.inputs import Facts
from medscale.serve.predict import Predictor

MOST_IMAGES = 256  # read for calibration and comparison
MOST_DECODED = 16  # of them compared from decoded pixels on
RANDOM_IMAGES = 16  # compared where no images are given
RANDOM_DECODED = 8  # of them compared from decoded pixels on

# an image as it was given, the preprocessed one, and the facts in its headers
ReadImage = tuple[inputs.ImageInput, PreparedImage, Facts]
# pixels (uint8, H,W,3), and the inputs that medscale computes from them
DecodedImage = tuple[np.ndarray, Inputs]


@dataclass(frozen=True)
class ExportedFile:
    """A written ONNX file and its comparison with PyTorch."""

    file: Path
    format: str
    megabytes: float
    input: str  # "decoded images" or "preprocessed images"
    largest_difference: float  # of the network's outputs from PyTorch's in 32 bit
    # of the file's outputs from those of ``medscale predict`` on the CPU, from decoded images on;
    # None for a file that takes preprocessed images
    largest_difference_decoded: float | None
    medscale_format: NumberFormat  # in which ``medscale predict`` computes the run on the CPU
    calibration: Calibration | None  # of the probabilities; None for a detector
    replicates: str  # that it holds, in words (``Inference.seeds_in_words``)
    compared_inputs: int
    compared_on: str  # "images" or "random colours"
    engine: str | None  # runtime whose compiled engine lies next to the file, or None

    def lines(self) -> Iterator[str]:
        """Yield the facts as sentences."""
        objects, photographs = self.compared_on, ""
        if objects != "images":
            objects = f"images of {objects}; name real ones with --images"
            photographs = "; of JPEGs that are decoded whole by more (docs/how-to/export.md)"
        yield (
            f"{self.file} ({self.megabytes:.1f} MB): outputs within {self.largest_difference:.2g}"
            f" of PyTorch's in 32 bit on {self.compared_inputs} {objects}"
        )
        if self.largest_difference_decoded is None:
            yield "it takes preprocessed images (medscale.data.preprocess)"
        else:
            yield (
                "it takes decoded images of any size: with its own preprocessing, outputs within"
                f" {self.largest_difference_decoded:.2g} of medscale's in {self.medscale_format}"
                f"{photographs}"
            )
        if self.replicates:
            yield f"network: {self.replicates}; --seed selects others"
        if self.calibration is not None:
            yield f"calibration of its probabilities: {self.calibration}"
        if self.engine is not None:
            yield f"the engine of {self.engine} is in {self.file.parent}"


def default_name(run: str, to: str) -> str:
    """Return the file name of an export of a run: ``.onnx``, after the format's name if needed."""
    return f"{run}.onnx" if to == "onnx" else f"{run}.{to}.onnx"


def export(
    predictor: Predictor,
    to: str,
    path: Path | None,
    images: Path | None,
    *,
    preprocessed: bool = False,
    calibrated: bool = True,
) -> ExportedFile:
    """Write a run as an ONNX file and compare it with PyTorch on images, or random colours.

    The file is written under a temporary name, checked, and only then put in place. Raises
    MedscaleError for an unknown format or one that cannot be written here, and for a file whose
    outputs differ from PyTorch's by more than its format allows.

    Args:
        predictor: the loaded run, on the CPU.
        to: name of a format.
        path: the new file; None for ``<study>-<run>.onnx`` here, of other formats than ``onnx``
            ``<study>-<run>.<format>.onnx``.
        images: a folder of images; None for random colours.
        preprocessed: write a file that takes preprocessed images, without the preprocessing.
        calibrated: as of ``Predictor.predict``.
    """
    require("ONNX exports", "export", "onnx", "onnxscript", "onnxruntime")
    form, record = by_name(to), predictor.inference
    is_classification = record.task == "classification"
    preprocessed = preprocessed or form.preprocessed
    _check(form, images, None if preprocessed else record.preprocess)
    path = new_file(path or Path(default_name(f"{record.study}-{record.run}", to)))
    read = [] if images is None else _read_images(predictor, images)
    samples = _samples(predictor, read)
    decoded = [] if preprocessed else _decoded(predictor, read)
    differences = _write(predictor, form, path, samples, decoded, calibrated)
    if form.engine is not None:
        features = samples[FEATURES][:1] if FEATURES in samples else None
        runtime.onnx(path, form.engine)(samples[PIXELS][:1], features)
    return ExportedFile(
        file=path,
        format=to,
        megabytes=path.stat().st_size / 1e6,
        input="decoded images" if decoded else "preprocessed images",
        largest_difference=differences[0],
        largest_difference_decoded=differences[1],
        medscale_format=predictor.format,
        calibration=predictor.calibration(calibrated) if is_classification else None,
        replicates=predictor.inference.seeds_in_words(predictor.weights),
        compared_inputs=len(samples[PIXELS]),
        compared_on="images" if images else "random colours",
        engine=form.engine,
    )


def _check(form: Format, images: Path | None, preprocess: Preprocess | None) -> None:
    """Refuse a format that cannot be written here.

    Args:
        form: the format.
        images: a folder of images, or None.
        preprocess: the preprocessing that the file is to contain, or None.
    """
    if form.calibrated and images is None:
        raise MedscaleError(
            f"{form.name} is calibrated on images: name a folder with --images (not of the test"
            " split)"
        )
    if form.engine is not None and (reason := runtime.absent(form.engine)) is not None:
        raise MedscaleError(f"--to {form.name}: {reason}")
    if preprocess is not None:
        from medscale.serve.onnx_preprocess import check_median

        check_median(preprocess)


def _write(
    predictor: Predictor,
    form: Format,
    path: Path,
    samples: Inputs,
    decoded: list[DecodedImage],
    calibrated: bool,
) -> tuple[float, float | None]:
    """Write the file, and return the largest differences of its outputs, as ExportedFile has them.

    The preprocessing is put into it where there are decoded images to compare.
    """
    largest, network = None, Exportable(predictor, calibrated)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        file = Path(folder, "whole.onnx")
        onnx_export.to_onnx(predictor, file, calibrated)
        difference = _difference(network, file, samples)
        ONNX.check(difference, "the ONNX file in 32 bit")
        if form.convert is not None:
            whole, file = file, Path(folder, path.name)
            form.write(whole, file, samples)
            difference = _difference(network, file, samples)
            form.check(difference, path.name)
        if decoded:
            onnx_export.include_preprocessing(file, predictor.inference.preprocess)
            largest = _difference_decoded(predictor, file, decoded, calibrated)
        os.replace(file, path)
    return difference, largest


def _read_images(predictor: Predictor, folder: Path) -> list[ReadImage]:
    """Return images of a folder, preprocessed, with the facts in their headers.

    Images that cannot be read are left out, and a warning names them. Raises MedscaleError when
    none can be read.
    """
    images, unreadable = [], []
    for name, image in inputs.name_images(folder)[:MOST_IMAGES]:
        try:
            images.append((image, *predictor.prepare(image)))
        except Unreadable as error:
            unreadable.append(f"{name} ({error})")
    if unreadable:
        names = listed(unreadable, inputs.NAMED)
        log.warning("%d images cannot be read and are left out: %s", len(unreadable), names)
    if not images:
        raise MedscaleError(f"no image of {folder} can be read; name a folder of images")
    return images


def _samples(predictor: Predictor, images: Sequence[ReadImage]) -> Inputs:
    """Return inputs of the ONNX file: from images, or random colours without them."""
    if not images:
        size = predictor.inference.preprocess.size
        pixels = _random_colours(RANDOM_IMAGES, size, size)
        facts: list[Facts] = [{}] * RANDOM_IMAGES
    else:
        pixels = np.stack([prepared.pixels for _, prepared, _ in images])
        facts = [predictor.accepted(headers) for _, _, headers in images]
    return inputs_of(pixels, predictor.features(facts))


def _random_colours(count: int, height: int, width: int) -> np.ndarray:
    """Return images of smooth colours, uint8, shape count,height,width,3.

    Networks are so certain of white noise that their probabilities are 0 and 1, whatever the file
    computes. These images differ among each other and in their parts, as photographs do.
    """
    random = np.random.default_rng(0)
    images = []
    for _ in range(count):
        colour = random.uniform(30, 225) + random.normal(0, 20, 3)
        cells = (colour + random.normal(0, 25, (6, 6, 3))).astype(np.float32)
        images.append(cv2.resize(cells, (width, height), interpolation=cv2.INTER_CUBIC))
    return np.clip(np.rint(images), 0, 255).astype(np.uint8)


def _decoded(predictor: Predictor, read_images: Sequence[ReadImage]) -> list[DecodedImage]:
    """Return decoded images, or random colours, with the inputs that medscale makes of them."""
    read = list(read_images[:MOST_DECODED])
    if not read:
        size = predictor.inference.preprocess.size
        # Several, since a network can be certain of one whatever the file computes.
        images = _random_colours(RANDOM_DECODED, size * 3 // 2, size * 5 // 4)
        read = [(image, *predictor.prepare(image)) for image in images]
    decoded = []
    for source, prepared, headers in read:
        features = predictor.features([predictor.accepted(headers)])
        decoded.append((inputs.pixels_of(source), inputs_of(prepared.pixels[None], features)))
    return decoded


def _difference_decoded(
    predictor: Predictor, path: Path, decoded: list[DecodedImage], calibrated: bool
) -> float:
    """Return the largest difference of a file's outputs on decoded images from the predictor's."""
    session = runtime.open_session(path)
    differences = []
    for pixels, samples in decoded:
        values = {IMAGES: pixels[None], **{k: v for k, v in samples.items() if k != PIXELS}}
        expected = _predicted(predictor, samples, calibrated)
        differences.append(_largest(expected, session.run(None, values)))
    return float(np.max(differences))  # NaN if one is, unlike Python's max


def _difference(network: Exportable, path: Path, samples: Inputs) -> float:
    """Return the largest difference of a file's outputs from PyTorch's."""
    return _largest(_expected(network, samples), runtime.open_session(path).run(None, samples))


def _predicted(predictor: Predictor, samples: Inputs, calibrated: bool) -> tuple[Tensor, ...]:
    """Return what ``medscale predict`` computes, in its own number format."""
    pixels, features = samples[PIXELS], samples.get(FEATURES)
    if predictor.inference.task == "detection":
        return predictor.head.decode(predictor.logits(pixels)[0])
    return (torch.from_numpy(predictor.probabilities(pixels, features, calibrated)),)


@torch.inference_mode()
def _expected(network: Exportable, samples: Inputs) -> tuple[Tensor, ...]:
    outputs = network(*(torch.from_numpy(values) for values in samples.values()))
    return outputs if isinstance(outputs, tuple) else (outputs,)


def _largest(expected: Sequence[Tensor], actual: Sequence[np.ndarray]) -> float:
    pairs = zip(actual, expected, strict=True)
    return float(np.max([np.abs(a - e.numpy()).max() for a, e in pairs]))
