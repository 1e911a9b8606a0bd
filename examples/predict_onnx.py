"""Predict the class of a PNG by an exported network: predict_onnx.py NETWORK.onnx IMAGE.png."""

import json
import sys
import zlib
from pathlib import Path

import numpy as np
from onnxruntime import InferenceSession


def read_png(path: str) -> np.ndarray:
    """Decode a PNG of 8 bits, grey or RGB, to H,W,C; any other decoder can take this place."""
    data, parts, place = Path(path).read_bytes(), b"", 8
    while place < len(data):
        size = int.from_bytes(data[place : place + 4])
        parts += data[place + 8 : place + 8 + size] * (data[place + 4 : place + 8] == b"IDAT")
        place += 12 + size
    width, height = (int.from_bytes(data[at : at + 4]) for at in (16, 20))
    step = {b"\x08\x00\x00\x00\x00": 1, b"\x08\x02\x00\x00\x00": 3}.get(data[24:29])  # channels
    step = step or sys.exit(f"{path} is no PNG of 8 bits, grey or RGB, without interlacing")
    rows, above = [], [0] * (step + step * width)  # zeros to the left of each row and above
    for row in np.frombuffer(zlib.decompress(parts), np.uint8).reshape(height, -1).tolist():
        line = [0] * step
        for value, left, up, corner in zip(row[1:], line, above[step:], above, strict=False):
            near = min(left, up, corner, key=lambda near: abs(left + up - corner - near))
            line.append(value + (0, left, up, (left + up) // 2, near)[row[0]] & 255)
        rows.append(line[step:])
        above = line
    return np.array(rows, np.uint8).reshape(height, width, step)


network = InferenceSession(sys.argv[1])
classes = json.loads(network.get_modelmeta().custom_metadata_map["medscale"])["classes"]
(probabilities,) = network.run(["probabilities"], {"images": read_png(sys.argv[2])[None]})
print(json.dumps(dict(zip(classes, probabilities[0].tolist(), strict=True))))
