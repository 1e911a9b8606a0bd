"""Draw the synthetic example images of the service's page (`python tools/page_examples.py`).

Each dataset kind with synthetic images has two: one of the first and one of the last class.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from medscale.data.demo import chest, dermoscopy, retina, skin

FOLDER = Path(__file__).parents[1] / "src/medscale/serve/http/page/examples"
SEED, SIZE, QUALITY = 11, 224, 80  # QUALITY of JPEG: each file stays below 12 kB


def fundus(number: int) -> np.ndarray:
    """Draw a fundus photograph with a small (0) or a large (1) cup."""
    return retina.photograph(np.random.default_rng([SEED, number]), (0.38, 0.75)[number], SIZE)


def lesion(number: int) -> np.ndarray:
    """Draw a dermoscopic image of a naevus-like (0) or a melanoma-like (1) lesion."""
    rng = np.random.default_rng([SEED, number])
    looks = dermoscopy.appearance(rng, (0, len(dermoscopy.APPEARANCE) - 1)[number])
    return dermoscopy.photograph(rng, looks, SIZE * 3 // 4, SIZE)


def spots(number: int) -> np.ndarray:
    """Draw a photograph of skin of the first (0) or the last (1) class."""
    rng = np.random.default_rng([SEED, number])
    looks = skin.appearance(rng, (0, len(skin.CLASSES) - 1)[number])
    return skin.photograph(rng, looks, SIZE)


def chest_xray(number: int) -> np.ndarray:
    """Draw a chest X-ray without (0) or with (1) two opacities."""
    rng = np.random.default_rng([SEED, number])
    anatomy = chest.Anatomy.draw(rng, rng, False)
    opacities = tuple(anatomy.opacity(rng, side, 60.0) for side in (-1, 1))
    return chest.radiograph(rng, anatomy, SIZE, opacities=opacities if number else ())


KINDS = {"smdg": fundus, "isic2017": lesion, "skin": spots, "rsna": chest_xray}


def main() -> None:
    """Write both images of each kind."""
    FOLDER.mkdir(exist_ok=True)
    for kind, draw in KINDS.items():
        for number in range(2):
            path = FOLDER / f"{kind}-{number + 1}.jpg"
            pixels = draw(number)
            image = pixels if pixels.ndim == 2 else pixels[..., ::-1]
            cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])


if __name__ == "__main__":
    main()
