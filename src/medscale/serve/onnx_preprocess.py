"""Preprocessing as an ONNX graph: the steps of ``data.preprocess`` as OpenCV computes them.

All arithmetic is that of OpenCV 5 on an x86 CPU: integers where OpenCV has integers, 32-bit sums in
OpenCV's order elsewhere, so that pixels become the same grey levels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from onnx import ModelProto

from medscale.base.errors import MedscaleError
from medscale.data.preprocess import gamma
from medscale.data.settings import Clahe, Preprocess
from medscale.serve.formats.format import IMAGES, PIXELS
from medscale.serve.onnx_graph import Graph, Tensor, put_before

LARGEST_MEDIAN = 15  # pixels; a median holds window x window copies of the image in memory
FACTORS = (2, 4, 8)  # of ``data.preprocess.reduction``
LINEAR_BITS = 11  # of OpenCV's weights of linear interpolation
GREYS = 256
HEIGHT, WIDTH, CHANNEL = 1, 2, 3  # axes of images

# Constants of OpenCV's conversions between sRGB and CIELAB in 8 bits (ITU-R BT.709, D65).
WHITE = np.array([0.950456, 1.0, 1.088754])
RGB_TO_XYZ = np.array(
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
)
XYZ_TO_RGB = np.array(
    [
        [3.240479, -1.53715, -0.498535],
        [-0.969256, 1.875991, 0.041556],
        [0.055648, -0.204043, 1.057311],
    ]
)
LINEAR_SCALE = 8 * 255  # 1.0 of linear light in tables
ROOT_BITS, CUBE_BITS, MATRIX_BITS, INVERSE_BITS = 15, 14, 12, 12  # of fixed-point numbers
DARK = 216 / 24389  # (6/29)^3: CIELAB is linear in light below


def add_preprocessing(model: ModelProto, settings: Preprocess) -> None:
    """Let a network take decoded images of any size: put the preprocessing before it.

    Its input PIXELS (uint8, n,size,size,3) becomes IMAGES (uint8, n,H,W,C; C is 1 or 3, RGB).
    Raises MedscaleError for a median filter that needs too much memory.
    """
    check_median(settings)
    graph = Graph()
    axes = ["images", "height", "width", "channels"]
    pixels = preprocessed(graph, Tensor(graph, IMAGES), settings)
    put_before(graph, pixels.to(np.uint8), IMAGES, axes, model, PIXELS)


def check_median(settings: Preprocess) -> None:
    """Raise a MedscaleError for a median filter that needs too much memory."""
    if settings.median is not None and settings.median > LARGEST_MEDIAN:
        raise MedscaleError(
            f"preprocess.median is {settings.median}: an ONNX file takes windows of up to"
            f" {LARGEST_MEDIAN} pixels; write a file of preprocessed images (--preprocessed)"
        )


def preprocessed(graph: Graph, images: Tensor, settings: Preprocess) -> Tensor:
    """Return images as ``data.preprocess.preprocess`` does, int64, n,size,size,3."""
    if settings.fit == "cover":
        images = middle_square(graph, images)
    images = resized(graph, images, settings.size, settings.margin)
    images = graph.node("Expand", images, graph.constant([1, 1, 1, 3]))  # grey to RGB
    if settings.clahe is not None:
        images = equalized(graph, images, settings.clahe, settings.size)
    if settings.gamma is not None:
        table = gamma(np.arange(GREYS, dtype=np.uint8), settings.gamma)
        images = graph.constant(table.ravel().astype(np.int64)).at(images)
    if settings.median is not None:
        images = median(graph, images, settings.median, settings.size)
    return images


def middle_square(graph: Graph, images: Tensor) -> Tensor:
    """Return the largest square in the middle of each image."""
    height, width = images.length(HEIGHT), images.length(WIDTH)
    side = height.least(width)
    for axis, length in ((HEIGHT, height), (WIDTH, width)):
        start = (length - side) / 2
        images = graph.node("Slice", images, start, start + side, graph.constant([axis]))
    return images


def resized(graph: Graph, images: Tensor, size: int, margin: float) -> Tensor:
    """Resize to size x size: shrink by a whole factor, then by areas or linearly. int64."""
    sides = [images.length(axis) for axis in (HEIGHT, WIDTH)]
    short = sides[0].least(sides[1])
    factor: Tensor = graph.constant([1])
    for larger in FACTORS:
        fits = (short >= math.ceil(margin * size * larger)).to(np.int64)
        factor = factor.largest(fits * larger)
    shrunk = averaged(graph, images, [side / factor for side in sides])
    sides = [shrunk.length(axis) for axis in (HEIGHT, WIDTH)]
    least, most = sides[0].least(sides[1]), sides[0].largest(sides[1])
    large = (least >= size) & (most >= 2 * size)
    by_areas = averaged(graph, shrunk, [graph.constant([size])] * 2)
    return graph.node("Where", large, by_areas, interpolated(graph, shrunk, size))


def averaged(graph: Graph, images: Tensor, lengths: Sequence[Tensor]) -> Tensor:
    """Return images whose pixels are means of rectangles of the originals (INTER_AREA). int64.

    Args:
        graph: takes the nodes.
        images: n,H,W,C, integers.
        lengths: the new height and width, shape (1,) each.
    """
    sides = [images.length(axis) for axis in (HEIGHT, WIDTH)]
    pairs = list(zip(sides, lengths, strict=True))
    whole = (sides[0] % lengths[0] + sides[1] % lengths[1]).equals(0)
    sums = images
    for axis in (WIDTH, HEIGHT):
        sums = _weighted_sums(graph, sums, axis, *pairs[axis - HEIGHT], whole)
    # By whole factors, OpenCV adds up integers and divides once. It rounds halves to the even
    # number, but up where it halves both sides.
    unit, half = graph.constant(np.float32(1)), graph.constant(np.float32(0.5))
    factors = (sides[0] / lengths[0]) * (sides[1] / lengths[1])
    means = sums * graph.node("Where", whole, unit / factors.largest(1).to(np.float32), unit)
    halved = sides[0].equals(lengths[0] * 2) & sides[1].equals(lengths[1] * 2)
    up = graph.node("Floor", means + half)
    return graph.node("Where", halved, up, graph.node("Round", means)).to(np.int64)


def _weighted_sums(
    graph: Graph, images: Tensor, axis: int, side: Tensor, length: Tensor, whole: Tensor
) -> Tensor:
    """Return weighted sums over ``length`` equal parts of an axis, float32.

    Pixels are added in OpenCV's order, in 32 bit. A pixel's weight is its share of the part, or 1
    where ``whole`` is true; parts of pixels below 0.001 are left out.
    """
    pixel_share, least = graph.constant(1.0), graph.constant(1e-3)
    scale = pixel_share / (length.to(np.float64) / side.to(np.float64))
    count = graph.node("Squeeze", length)
    places = graph.node("Range", graph.constant(0), count, graph.constant(1))
    start = places.to(np.float64) * scale
    end, width = start + scale, scale.least(side.to(np.float64) - start)
    last = graph.node("Floor", end).to(np.int64).least(side - 1)
    first = graph.node("Ceil", start).to(np.int64).least(last)
    lead = first.to(np.float64) - start  # share of the pixel before the first whole pixel
    has_lead = lead >= least
    rest = end - last.to(np.float64)
    last_weight = rest.least(pixel_share).least(width) * (rest >= least).to(np.float64)
    leads = has_lead.to(np.int64)
    first = first - leads

    body = graph.inner()
    step = body.input("step")
    pixel = first.inside(body) + step
    ahead = (last.inside(body) - 1 >= pixel).to(np.float64)
    at_last = pixel.equals(last.inside(body)).to(np.float64)
    weight = ahead + at_last * last_weight.inside(body)
    leading = step.equals(0) & has_lead.inside(body)
    weight = body.node("Where", leading, lead.inside(body), weight) / width.inside(body)
    used = (weight >= body.constant(1e-12)).to(np.float32)
    weight = body.node("Where", whole.inside(body), used, weight.to(np.float32))
    column = [-1] + [1] * (CHANNEL - axis)
    values = images.inside(body).at(pixel.least((side - 1).inside(body)), axis).to(np.float32)
    total = body.input("total") + values * weight.reshaped(*column)

    steps = graph.node("Ceil", scale).to(np.int64) + 2
    zeros = images.at(first * 0, axis).to(np.float32) * graph.constant(np.float32(0))
    return graph.loop(graph.node("Squeeze", steps), body, total, zeros)


def interpolated(graph: Graph, images: Tensor, size: int) -> Tensor:
    """Interpolate linearly to size x size with OpenCV's weights of 11 bits (INTER_LINEAR). int64.

    Beyond the outermost pixels' centres, columns have the outermost pixel's value; rows have the
    sum of its two rounded parts.
    """
    images = images.to(np.int64)
    left, right, low, high = _weights(graph, images.length(WIDTH), size, clamped=True)
    rows = images.at(left, WIDTH) * low.reshaped(-1, 1)
    rows = (rows + images.at(right, WIDTH) * high.reshaped(-1, 1)) / 2**4
    top, bottom, low, high = _weights(graph, images.length(HEIGHT), size, clamped=False)
    upper = (rows.at(top, HEIGHT) * low.reshaped(-1, 1, 1)) / 2**16
    lower = (rows.at(bottom, HEIGHT) * high.reshaped(-1, 1, 1)) / 2**16
    return (upper + lower + 2) / 4


def _weights(graph: Graph, side: Tensor, size: int, *, clamped: bool) -> tuple[Tensor, ...]:
    """Return both neighbours of each new pixel on an axis, and their weights (int64)."""
    scale = side.to(np.float64) / graph.constant(float(size))
    centres = graph.constant(np.arange(size) + 0.5) * scale
    place = (centres - graph.constant(0.5)).to(np.float32)
    floor = graph.node("Floor", place)
    share, first = place - floor, floor.to(np.int64)
    if clamped:
        inside = (first >= 0) & ((side - 2) >= first)
        share = share * inside.to(np.float32)
    unit, scale = (graph.constant(np.float32(value)) for value in (1, 2**LINEAR_BITS))
    high, low = (
        graph.node("Round", weight * scale).to(np.int64) for weight in (share, unit - share)
    )
    last = side - 1
    neighbours = [(first + step).largest(0).least(last) for step in (0, 1)]
    return *neighbours, low, high


def equalized(graph: Graph, images: Tensor, settings: Clahe, size: int) -> Tensor:
    """Equalize the lightness locally with limited contrast (CLAHE), colours kept. int64."""
    lightness, a, b = lab(graph, images)
    return rgb(graph, clahe(graph, lightness, settings, size), a, b)


def clahe(graph: Graph, grey: Tensor, settings: Clahe, size: int) -> Tensor:
    """Equalize grey images (int64, n,size,size) by OpenCV's CLAHE (Zuiderveld 1994)."""
    tiles = settings.tiles
    side = -(-size // tiles)  # of a tile; the image is mirrored to fill the last tiles
    inner = np.pad(np.arange(size), (0, side * tiles - size), "reflect")
    tile = np.arange(side * tiles) // side
    offsets = GREYS * (tiles * tile[:, None] + tile)
    bins = grey.at(inner, 1).at(inner, 2) + offsets
    tables = _tables(graph, bins.reshaped(0, -1), settings, side)

    place = np.arange(size, dtype=np.float32) * np.float32(1 / side) - np.float32(0.5)
    first = np.floor(place)
    share = (place - first).astype(np.float32)
    before = np.maximum(first, 0).astype(np.int64)
    after = np.minimum(first + 1, tiles - 1).astype(np.int64)

    def looked_up(rows: np.ndarray, columns: np.ndarray) -> Tensor:
        places = (grey + GREYS * (tiles * rows[:, None] + columns)).reshaped(0, -1)
        return graph.node("GatherElements", tables, places, axis=1).reshaped(0, size, size)

    def mixed(earlier: Tensor, later: Tensor, shares: np.ndarray) -> Tensor:
        return earlier * (np.float32(1) - shares) + later * shares

    upper = mixed(looked_up(before, before), looked_up(before, after), share)
    lower = mixed(looked_up(after, before), looked_up(after, after), share)
    return graph.node("Round", mixed(upper, lower, share[:, None])).to(np.int64)


def _tables(graph: Graph, bins: Tensor, settings: Clahe, side: int) -> Tensor:
    """Return each tile's new grey levels (float32, n,tiles*tiles*256) from its clipped histogram.

    Args:
        graph: takes the nodes.
        bins: the bin of each pixel among those of all tiles, n,pixels.
        settings: of CLAHE.
        side: of a tile, pixels.
    """
    count = settings.tiles**2 * GREYS
    shape = graph.node("Concat", bins.length(0), graph.constant([count]), axis=0)
    empty = graph.node("Expand", graph.constant([[0]]), shape)
    ones = bins * 0 + 1
    histograms = graph.node("ScatterElements", empty, bins, ones, axis=1, reduction="add")
    histograms = histograms.reshaped(0, -1, GREYS)
    limit = max(int(settings.clip_limit * side**2 / GREYS), 1)
    clipped = histograms.least(limit)
    axes = graph.constant([2])
    excess = graph.node("ReduceSum", histograms - clipped, axes)
    rest = excess % GREYS
    step = graph.constant(GREYS) / rest.largest(1)
    grey = graph.constant(np.arange(GREYS))
    further = (grey % step).equals(0) & (rest - 1 >= grey / step)
    raised = clipped + excess / GREYS + further.to(np.int64)
    totals = graph.node("CumSum", raised, graph.constant(2)).to(np.float32)
    levels = totals * graph.constant(np.float32(255 / side**2))
    return graph.node("Round", levels).reshaped(0, -1)


def lab(graph: Graph, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Convert sRGB (int64, n,H,W,3) to CIELAB in 8 bits; return L, a and b (n,H,W)."""
    levels = np.arange(GREYS) / 255
    light = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    matrix = 2**MATRIX_BITS * RGB_TO_XYZ / WHITE[:, None]
    # In 32 bit as OpenCV's table, whose entries would differ otherwise.
    y = np.arange(12 * GREYS, dtype=np.float32) * np.float32(1 / LINEAR_SCALE)
    roots = np.where(y < DARK, y * (841 / 108) + 16 / 116, np.cbrt(y))
    table = graph.constant(_rounded(2**ROOT_BITS * roots))
    linear = graph.constant(_rounded(LINEAR_SCALE * light)).at(images)
    xyz = _product(graph, [linear.at(n, CHANNEL) for n in range(3)], matrix)
    x, y_root, z = (table.at(value.descaled(MATRIX_BITS)) for value in xyz)
    unit = 2**ROOT_BITS
    scale, offset = (116 * 255 + 50) // 100, (16 * 255 * unit + 50) // 100
    lightness = (y_root * scale - offset).descaled(ROOT_BITS)
    a = ((x - y_root) * 500 + 128 * unit).descaled(ROOT_BITS)
    b = ((y_root - z) * 200 + 128 * unit).descaled(ROOT_BITS)
    return lightness, a, b


def rgb(graph: Graph, lightness: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Convert CIELAB in 8 bits (n,H,W each) to sRGB (int64, n,H,W,3)."""
    unit = 2**CUBE_BITS
    levels = np.arange(GREYS) * 100 / 255
    y = np.where(levels <= 8, levels * 27 / 24389, ((levels + 16) / 116) ** 3)
    root = np.where(levels <= 8, y * (841 / 108) + 16 / 116, (levels + 16) / 116)
    light = np.arange(2**INVERSE_BITS) / 2**INVERSE_BITS
    grey = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    root_y = graph.constant(_rounded(unit * root)).at(lightness)
    # 53687 / 2^13 * 5 and 41943 / 2^9 are OpenCV's fixed-point unit / 500 and unit / 200.
    root_x = root_y + (a * (5 * 53687) + 2**7).shifted(13) - 128 * unit // 500
    root_z = root_y - ((b * 41943 + 2**4).shifted(9) - 128 * unit // 200 + 1)
    light_y = graph.constant(_rounded(unit * y)).at(lightness)
    xyz = [_cubed(graph, root_x), light_y, _cubed(graph, root_z)]
    table = graph.constant(_rounded(255 * grey))
    matrix = 2**MATRIX_BITS * XYZ_TO_RGB * WHITE
    channels = []
    for value in _product(graph, xyz, matrix):
        place = value.descaled(MATRIX_BITS + CUBE_BITS - INVERSE_BITS)
        levels_of = table.at(place.largest(0).least(2**INVERSE_BITS - 1))
        channels.append(graph.node("Unsqueeze", levels_of, graph.constant([CHANNEL])))
    return graph.node("Concat", *channels, axis=CHANNEL)


def _cubed(graph: Graph, root: Tensor) -> Tensor:
    """Return light from its root of CIELAB, both in fixed point."""
    unit = 2**CUBE_BITS
    linear = root * 108 / 841 - unit * 16 // 116 * 108 // 841
    cube = root * root / unit * root / unit
    dark = graph.node("LessOrEqual", root, graph.constant(3390))
    return graph.node("Where", dark, linear, cube)


def _product(graph: Graph, channels: Sequence[Tensor], matrix: np.ndarray) -> list[Tensor]:
    """Multiply channels by a matrix, rounded to integers."""
    rows = _rounded(matrix)
    red, green, blue = channels
    return [red * int(r) + green * int(g) + blue * int(b) for r, g, b in rows]


def _rounded(values: np.ndarray) -> np.ndarray:
    return np.rint(values).astype(np.int64)


def median(graph: Graph, images: Tensor, window: int, size: int) -> Tensor:
    """Return the median of the window around each pixel; the border is repeated. int64."""
    copies = []
    places = [np.clip(np.arange(size) + step - window // 2, 0, size - 1) for step in range(window)]
    for rows in (images.at(place, HEIGHT) for place in places):
        copies += [
            graph.node("Unsqueeze", rows.at(place, WIDTH), graph.constant([4])) for place in places
        ]
    stacked = graph.node("Concat", *copies, axis=4).to(np.float32)
    half = window**2 // 2 + 1
    ordered = graph.node("TopK", stacked, graph.constant([half]), axis=4, further=1)
    return ordered.at(half - 1, 4).to(np.int64)
