"""The preprocessing inside exported files gives the grey levels that the package's gives."""

from __future__ import annotations

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from medscale.base.errors import MedscaleError
from medscale.data.preprocess import preprocess
from medscale.data.settings import Preprocess
from medscale.serve.formats.format import IMAGES, PIXELS
from medscale.serve.onnx_graph import Graph, Tensor, put_before
from medscale.serve.onnx_preprocess import add_preprocessing, lab, rgb

SIZE = 96
CLAHE = {"clip_limit": 2.5, "tiles": 7}  # tiles that do not divide the image
# Height and width for each way of resizing.
SIDES = {
    "same": (SIZE, SIZE),
    "enlarged": (50, 61),
    "linear": (110, 150),
    "halved": (2 * SIZE, 2 * SIZE),
    "quartered": (4 * SIZE, 5 * SIZE),
    "point": (1, 1),
    "wide": (8, 700),
    "factor": (401, 599),
    "areas": (300, 130),
    "whole areas": (SIZE, 3 * SIZE),
}


def identity(size: int) -> onnx.ModelProto:
    """Return a network that gives its pixels back."""
    shape = ["images", size, size, 3]
    values = [
        helper.make_tensor_value_info(name, TensorProto.UINT8, shape) for name in (PIXELS, "y")
    ]
    graph = helper.make_graph(
        [helper.make_node("Identity", [PIXELS], ["y"])], "g", *[[v] for v in values]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    onnx.checker.check_model(model, full_check=True)
    return onnxruntime.InferenceSession(model.SerializeToString())


def picture(sides: tuple[int, int], count: int = 1) -> np.ndarray:
    """Return images of smooth colours with noise, uint8, count,H,W,3."""
    rng = np.random.default_rng(0)
    grids = rng.integers(0, 256, (count, 9, 7, 3), np.uint8)
    smooth = [cv2.resize(grid, sides[::-1], interpolation=cv2.INTER_CUBIC) for grid in grids]
    noise = rng.integers(-9, 10, (count, *sides, 3))
    return np.clip(np.stack(smooth) + noise, 0, 255).astype(np.uint8)


def differences(settings: Preprocess, sides: tuple[int, int]) -> np.ndarray:
    """Return the graph's grey levels less the package's, of two images."""
    model, images = identity(settings.size), picture(sides, 2)
    add_preprocessing(model, settings)
    (pixels,) = session(model).run(None, {IMAGES: images})
    expected = np.stack([preprocess(image, settings) for image in images])
    return pixels.astype(int) - expected


@pytest.mark.parametrize("sides", SIDES)
@pytest.mark.parametrize(
    "steps",
    [{}, {"fit": "cover"}, {"clahe": CLAHE, "gamma": 1.3, "median": 5}],
    ids=["resized", "cover", "all"],
)
def test_grey_levels_are_the_packages(steps: dict, sides: str) -> None:
    settings = Preprocess(size=SIZE, **steps)
    assert not differences(settings, SIDES[sides]).any()


def test_grey_images_have_one_channel() -> None:
    settings = Preprocess(size=SIZE)
    model, image = identity(SIZE), picture((200, 150))[..., :1]
    add_preprocessing(model, settings)
    (pixels,) = session(model).run(None, {IMAGES: image})
    np.testing.assert_array_equal(pixels[0], preprocess(np.repeat(image[0], 3, 2), settings))


def test_colours_are_converted_as_opencv_converts_them() -> None:
    step = np.arange(0, 256, 3, np.uint8)  # 86³ of the 256³ colours, which all agree
    colours = np.stack(np.meshgrid(step, step, step), -1).reshape(1, 86, -1, 3)
    images = {"lab": cv2.COLOR_RGB2LAB, "rgb": cv2.COLOR_LAB2RGB}
    for name, code in images.items():
        graph, model = Graph(), identity(86)
        values = Tensor(graph, IMAGES).to(np.int64)
        if name == "lab":
            parts = [graph.node("Unsqueeze", v, graph.constant([3])) for v in lab(graph, values)]
            output = graph.node("Concat", *parts, axis=3)
        else:
            output = rgb(graph, *(values.at(n, 3) for n in range(3)))
        put_before(graph, output.to(np.uint8), IMAGES, ["n", 86, 86 * 86, 3], model, PIXELS)
        del model.graph.output[0].type.tensor_type.shape.dim[:]
        (converted,) = onnxruntime.InferenceSession(model.SerializeToString()).run(
            None, {IMAGES: colours}
        )
        np.testing.assert_array_equal(converted[0], cv2.cvtColor(colours[0], code), name)


def test_a_large_median_is_refused() -> None:
    with pytest.raises(MedscaleError, match=r"median is 17: .*--preprocessed"):
        add_preprocessing(identity(SIZE), Preprocess(size=SIZE, median=17))
