"""Predict the class of a JPEG or PNG by an exported network: predict_onnx.py NETWORK.onnx IMAGE."""

import json
import sys

import cv2
import numpy as np
from onnxruntime import InferenceSession

network, photo = InferenceSession(sys.argv[1]), sys.argv[2]
about = json.loads(network.get_modelmeta().custom_metadata_map["medscale"])
steps, size = about["preprocess"], about["preprocess"]["size"]
image = cv2.imread(photo)
least, short = size * steps["margin"], min(image.shape[:2])
factor = next((f for f in (8, 4, 2) if short >= f * least), 1)
if photo.lower().endswith((".jpg", ".jpeg")) and factor > 1:  # a JPEG shrinks as it is decoded
    image, factor = cv2.imread(photo, getattr(cv2, f"IMREAD_REDUCED_COLOR_{factor}")), 1
if steps["fit"] == "cover":  # the square in the middle
    side = min(image.shape[:2])
    top, left = ((length - side) // 2 for length in image.shape[:2])
    image = image[top : top + side, left : left + side]
high, wide = (length // factor for length in image.shape[:2])
large = min(high, wide) >= size and max(high, wide) >= 2 * size
for sides, method in (((wide, high), True), ((size, size), large)):
    image = cv2.resize(image, sides, interpolation=cv2.INTER_AREA if method else cv2.INTER_LINEAR)
if clahe := steps["clahe"]:  # equalizes the lightness
    image, tiles = cv2.cvtColor(image, cv2.COLOR_BGR2LAB), [clahe["tiles"]] * 2
    image[..., 0] = cv2.createCLAHE(clahe["clip_limit"], tiles).apply(image[..., 0])
    image = cv2.cvtColor(image, cv2.COLOR_LAB2BGR)
tones = 255 * (np.arange(256) / 255) ** (1 / (steps["gamma"] or 1))
image = cv2.medianBlur(cv2.LUT(image, np.rint(tones).astype(np.uint8)), steps["median"] or 1)
(odds,) = network.run(None, {"pixels": cv2.cvtColor(image, cv2.COLOR_BGR2RGB)[None]})
print(json.dumps(dict(zip(about["classes"], odds[0].tolist(), strict=True))))
