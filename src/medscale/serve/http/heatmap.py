"""Heat maps (Grad-CAM) over whole images, averaged over networks that see different parts."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch

from medscale.data.settings import Preprocess
from medscale.engine.formats import using
from medscale.engine.models.gradcam import gradcam
from medscale.engine.plan import Crop
from medscale.serve.http.answers import Region
from medscale.serve.http.messages import DecodedImage
from medscale.serve.predict import Predictor

SIDE = 256  # pixels of a heat map's longer side
OPAQUE = 200  # largest alpha, of 255, so that the image remains visible


def heatmaps(
    members: Sequence[Predictor],
    pixels: Sequence[np.ndarray],
    features: Sequence[np.ndarray | None],
    classes: np.ndarray,
    images: Sequence[DecodedImage],
) -> list[bytes]:
    """Return a PNG for each image: the mean Grad-CAM of all networks.

    Args:
        members: of the model.
        pixels: preprocessed images for each member, uint8, n,size,size,3.
        features: metadata for each member, float32, n,F, or None.
        classes: of each image, the class that is explained, int64, shape n.
        images: the same images, for their sizes.
    """
    canvases = [np.zeros(_shape(image), np.float32) for image in images]
    for member, batch, facts in zip(members, pixels, features, strict=True):
        inputs, record = member.network_inputs(batch, facts), member.inference
        for network in member.networks:
            with using(member.format):
                maps, _ = gradcam(network, inputs, torch.from_numpy(classes).to(member.device))
            for canvas, heat, image in zip(
                canvases, maps.float().cpu().numpy(), images, strict=True
            ):
                region = region_of(image, record.preprocess, record.crop)
                _add(canvas, heat, region, image)
    networks = sum(len(member.networks) for member in members)
    return [_png(canvas / networks) for canvas in canvases]


def region_of(image: DecodedImage, preprocess: Preprocess, crop: Crop | None) -> Region:
    """Return the part of an image that a network receives, in pixels of the displayed image."""
    x, y, width, height = 0.0, 0.0, float(image.width), float(image.height)
    if preprocess.fit == "cover":
        side = min(image.width, image.height)
        x, y = (image.width - side) // 2, (image.height - side) // 2
        width = height = side
    if crop is not None:
        share = crop.size / preprocess.size
        x, y = x + width * (1 - share) / 2, y + height * (1 - share) / 2
        width, height = width * share, height * share
    return Region(x=x, y=y, width=width, height=height)


def _shape(image: DecodedImage) -> tuple[int, int]:
    """Return height and width of an image's heat map."""
    scale = SIDE / max(image.width, image.height)
    return max(1, round(image.height * scale)), max(1, round(image.width * scale))


def _add(canvas: np.ndarray, heat: np.ndarray, region: Region, image: DecodedImage) -> None:
    """Add a network's heat (h,w) to the canvas of the whole image, within the network's region."""
    down, across = canvas.shape[0] / image.height, canvas.shape[1] / image.width
    top, left = round(region.y * down), round(region.x * across)
    height = min(max(1, round(region.height * down)), canvas.shape[0] - top)
    width = min(max(1, round(region.width * across)), canvas.shape[1] - left)
    whole = cv2.resize(heat, (width, height), interpolation=cv2.INTER_CUBIC)
    # Cubic interpolation leaves [0, 1], which would change the heat of the other networks.
    canvas[top : top + height, left : left + width] += whole.clip(0, 1)


def _png(heat: np.ndarray) -> bytes:
    """Return heat in [0, 1] as a PNG; both colour and opacity grow with heat."""
    grey = np.rint(heat * 255).astype(np.uint8)
    colours = cv2.cvtColor(cv2.applyColorMap(grey, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2BGRA)
    colours[..., 3] = np.rint(grey * (OPAQUE / 255))
    return bytes(cv2.imencode(".png", colours)[1])
