"""YOLOv8 as a plain module, and its loss. Only this module imports ultralytics."""

from __future__ import annotations

import os
import tempfile
from importlib import import_module
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from medscale.base.errors import MedscaleError
from medscale.data.augment import MEAN, STD
from medscale.engine.detect.extra import require
from medscale.engine.models.registry import listed, read_weights
from medscale.engine.plan import Model

PREFIX = "network."  # that this package's weights have before ultralytics' names
_home: tempfile.TemporaryDirectory[str] | None = None


class Yolo(nn.Module):
    """A DetectionModel of ultralytics that returns one tensor, in training and in evaluation.

    Input: float, shape n,3,H,W, normalized as by the loader. It is scaled back to [0, 1], the range
    that YOLO's published weights were trained on. Output: shape n,4R+1,A for A anchors: logits of
    the R bins of each side's distance (left, top, right, bottom), then the logit of the class.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Return the raw outputs of the head, before boxes are decoded."""
        mean, std = (torch.tensor(v, device=images.device).view(3, 1, 1) for v in (MEAN, STD))
        outputs = self.network(images * std + mean)
        # In evaluation, the decoded boxes come first.
        raw = outputs[1] if isinstance(outputs, tuple) else outputs
        return torch.cat([raw["boxes"], raw["scores"]], 1)


class BoxLoss:
    """Ultralytics' v8DetectionLoss: box (CIoU), class (BCE) and distribution focal loss.

    The loss of a batch of n images is n times the sum of these three terms. Each term is divided by
    the batch's sum of target scores (task-aligned assignment, Feng et al., ICCV 2021). A replica
    divides by the sum of its own share, so that the loss over a global batch is not exactly that of
    a serial run, even without batch normalization. Ultralytics' data-parallel training does the
    same.

    The loss does not rank epochs. A network that finds nothing is assigned no targets, so that its
    loss is close to 0 and rises as it begins to find boxes. The weights of the last epoch are kept,
    at the end of the cosine schedule.

    Args:
        network: the network, on the device.
        size: pixels per side of the images.
    """

    judges = ranks = False
    not_captured = (
        "YOLOv8's loss has tensors of as many rows as there are boxes, which the host reads"
    )

    def __init__(self, network: nn.Module, size: int) -> None:
        _prepare()
        from ultralytics.utils.loss import v8DetectionLoss
        from ultralytics.utils.tal import make_anchors

        assert isinstance(network, Yolo)
        self._loss: Any = v8DetectionLoss(network.network)
        self._size, self._bins = size, 4 * int(self._loss.reg_max)
        strides = torch.as_tensor(self._loss.stride)
        sides = [size // int(stride) for stride in strides.tolist()]
        self._levels = [torch.empty(1, 1, side, side, device=self._loss.device) for side in sides]
        self._anchors, self._strides = make_anchors(self._levels, strides, 0.5)

    def __call__(self, raw: Tensor, boxes: Tensor) -> Tensor:
        """Return the sum of losses, float32 scalar.

        Args:
            raw: outputs, shape n,4R+1,A.
            boxes: padded boxes (x, y, width, height), shape n,M,4.
        """
        image, number = (boxes[..., 2] > 0).nonzero(as_tuple=True)
        corner, sides = boxes[image, number].split(2, dim=1)
        centred = torch.cat([corner + sides / 2, sides], 1)
        batch = {"batch_idx": image, "cls": torch.zeros_like(image), "bboxes": centred}
        predictions = {
            "boxes": raw[:, : self._bins],
            "scores": raw[:, self._bins :],
            "feats": self._levels,
        }
        return self._loss(predictions, batch)[0].sum()

    def correct(self, raw: Tensor, boxes: Tensor) -> Tensor:
        """Return 0, as images are not judged."""
        return torch.zeros((), dtype=torch.int64, device=raw.device)

    @torch.no_grad()
    def decode(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """See ``task.BoxCriterion``."""
        distances = raw[:, : self._bins].permute(0, 2, 1).contiguous()
        corners = self._loss.bbox_decode(self._anchors, distances) * self._strides / self._size
        return corners.clamp(0, 1), raw[:, self._bins].sigmoid()


def build(model: Model) -> Yolo:
    """Return YOLOv8 for one class, with random weights (torch's generator) or pretrained ones.

    Raises MedscaleError when ultralytics is missing or too old, the model has options, or the
    weights do not fit.
    """
    _prepare()
    from ultralytics import __version__
    from ultralytics.cfg import get_cfg
    from ultralytics.nn.tasks import DetectionModel

    if tuple(int(part) for part in __version__.split(".")[:2]) < (8, 4):
        raise MedscaleError(
            f"ultralytics {__version__} is too old for detection runs; install 8.4 or later"
        )
    if model.options:
        raise MedscaleError(f"{model.name} has no options; leave {', '.join(model.options)} out")
    network: Any = DetectionModel(_description(model.name), ch=3, nc=1, verbose=False)
    network.args = get_cfg()  # the loss reads its weights there
    if model.pretrained is not None:
        load_weights(network, model.pretrained)
    return Yolo(network)


def load_weights(network: nn.Module, path: str) -> None:
    """Load weights from a .safetensors file with the names of this package or of ultralytics.

    Tensors of the head (the last layer) that have another shape keep their weights, since the
    number of classes decides their size. Raises MedscaleError when the file is no .safetensors
    file, is missing or damaged, or does not fit the network.
    """
    if not path.endswith(".safetensors"):
        raise MedscaleError(
            f"detect.pretrained: {path} is no .safetensors file. A .pt file of ultralytics is a "
            "pickle, which can run any code when it is read. If you trust it, convert it once: "
            'python -c "from ultralytics import YOLO; from safetensors.torch import save_file; '
            "save_file({k: v.contiguous() for k, v in YOLO('yolov8n.pt').model.float()"
            ".state_dict().items()}, 'yolov8n.safetensors')\""
        )
    weights = {
        key.removeprefix(PREFIX): value
        for key, value in read_weights(path, "detect.pretrained: ").items()
    }
    state = network.state_dict()
    head = ".".join(list(state)[-1].split(".")[:2]) + "."
    fitting = {k: v for k, v in weights.items() if k in state and v.shape == state[k].shape}
    wrong = [key for key in state if key not in fitting and not key.startswith(head)]
    wrong += [key for key in weights if key not in state]
    if wrong:
        raise MedscaleError(
            f"detect.pretrained: {path} does not fit the network: {listed(wrong)} are missing, "
            "unknown or of another shape"
        )
    network.load_state_dict(fitting, strict=False)


def _description(name: str) -> dict[str, Any]:
    """Return ultralytics' own description of YOLOv8 of a size.

    By name, ultralytics would take a file of the working directory, and run code that it contains.
    """
    from ultralytics.utils import ROOT, YAML

    description = YAML.load(ROOT / "cfg" / "models" / "v8" / "yolov8.yaml")
    return {**description, "scale": name[-1], "yaml_file": f"{name}.yaml"}


def _prepare() -> None:
    """Keep ultralytics from downloading, installing, writing elsewhere, and changing libraries.

    It writes to a temporary folder alone. Its import replaces ``PIL.Image.open`` by a function that
    installs a package where an image is damaged, and ``torch.save``: both are put back.
    """
    global _home
    require()
    if _home is None and "YOLO_CONFIG_DIR" not in os.environ:
        _home = tempfile.TemporaryDirectory(prefix="medscale-yolo-")
        os.environ["YOLO_CONFIG_DIR"] = _home.name
    os.environ |= {"YOLO_OFFLINE": "1", "YOLO_AUTOINSTALL": "false", "YOLO_VERBOSE": "false"}
    opens, saves = Image.open, torch.save
    import_module("ultralytics.utils.patches")
    Image.open, torch.save = opens, saves
