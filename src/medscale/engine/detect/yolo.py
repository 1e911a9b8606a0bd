"""YOLOv8 and its loss from ultralytics (AGPL-3.0) as a plain module and a criterion: the one place that imports it."""

from __future__ import annotations

import os
import tempfile
from typing import Any

import torch
from torch import Tensor, nn

from medscale.base.errors import MedscaleError
from medscale.data.augment import MEAN, STD
from medscale.engine.detect import require
from medscale.engine.models.registry import read_weights
from medscale.engine.plan import Model

PREFIX = "network."  # of this package's weights before ultralytics' own names
_home: tempfile.TemporaryDirectory[str] | None = None


class Yolo(nn.Module):
    """A DetectionModel of ultralytics that gives one tensor, in training and in evaluation.

    Input: float, shape n,3,H,W, normalized as the loader does; it is brought back to [0, 1], which YOLO's published
    weights were trained on. Output: shape n,4R+1,A for A anchors: logits of the R bins of each side's distance (left,
    top, right, bottom), then the logit of the one class.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Raw outputs of the head, before boxes are decoded."""
        mean, std = (torch.tensor(v, device=images.device).view(3, 1, 1) for v in (MEAN, STD))
        found = self.network(images * std + mean)
        raw = (
            found[1] if isinstance(found, tuple) else found
        )  # in evaluation decoded boxes stand before it
        return torch.cat([raw["boxes"], raw["scores"]], 1)


class BoxLoss:
    """Sum of ultralytics' v8DetectionLoss over a batch: box (CIoU), class (BCE) and distribution focal loss.

    The loss of a batch of n images is n times its three terms, each divided by the batch's own sum of target scores
    (task-aligned assignment, Feng et al., ICCV 2021), so that of a replica by that of its own share: with replicas the
    sum over a global batch is not exactly that of a serial run, also without batch normalization. Ultralytics' own
    data-parallel training does the same.

    It does not rank epochs: a network that finds nothing is assigned no targets, so that its loss is close to 0, and
    rises as it begins to find boxes. The last epoch is kept, at which the cosine schedule has come to rest.

    Args:
        network: the network, on the device.
        size: pixels a side of the images.
    """

    judges = ranks = False

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
        """Sum of losses, float32 scalar, of raw outputs (n,4R+1,A) and padded boxes (n,M,4: x, y, width, height)."""
        image, place = (boxes[..., 2] > 0).nonzero(as_tuple=True)
        corner, sides = boxes[image, place].split(2, dim=1)
        centred = torch.cat([corner + sides / 2, sides], 1)
        batch = {"batch_idx": image, "cls": torch.zeros_like(image), "bboxes": centred}
        given = {
            "boxes": raw[:, : self._bins],
            "scores": raw[:, self._bins :],
            "feats": self._levels,
        }
        return self._loss(given, batch)[0].sum()

    def correct(self, raw: Tensor, boxes: Tensor) -> Tensor:
        """Nothing is judged: 0."""
        return torch.zeros((), dtype=torch.int64, device=raw.device)

    @torch.no_grad()
    def decode(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Corners (n,A,4: left, top, right, bottom as shares of the image) and confidences (n,A) of raw outputs."""
        distances = raw[:, : self._bins].permute(0, 2, 1).contiguous()
        corners = self._loss.bbox_decode(self._anchors, distances) * self._strides / self._size
        return corners.clamp(0, 1), raw[:, self._bins].sigmoid()


def build(model: Model) -> Yolo:
    """YOLOv8 for one class, with weights from torch's global generator or from ``model.pretrained``.

    Raises:
        MedscaleError: when ultralytics is missing or too old, options are given, or the weights do not fit.
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
    network: Any = DetectionModel(f"{model.name}.yaml", ch=3, nc=1, verbose=False)
    network.args = get_cfg()  # the loss reads its weights there
    if model.pretrained is not None:
        load_weights(network, model.pretrained)
    return Yolo(network)


def load_weights(network: nn.Module, path: str) -> None:
    """Fill a DetectionModel from a .safetensors file, this package's or of ultralytics' names.

    Tensors of the last layer, the head, that have another shape keep their own weights: the number of classes decides
    their size.

    Raises:
        MedscaleError: for another kind of file, one that is missing or damaged, or one that does not fit.
    """
    if not path.endswith(".safetensors"):
        raise MedscaleError(
            f"detect.pretrained: {path} is no .safetensors file. A .pt file of ultralytics is a pickle, which can run "
            'any code when it is read; where you trust it, turn it into one once: python -c "from ultralytics import '
            "YOLO; from safetensors.torch import save_file; save_file({k: v.contiguous() for k, v in "
            "YOLO('yolov8n.pt').model.float().state_dict().items()}, 'yolov8n.safetensors')\""
        )
    given = {
        key.removeprefix(PREFIX): value
        for key, value in read_weights(path, "detect.pretrained: ").items()
    }
    wanted = network.state_dict()
    head = ".".join(list(wanted)[-1].split(".")[:2]) + "."
    unlike = [key for key in wanted if key not in given or given[key].shape != wanted[key].shape]
    unlike = [key for key in unlike if not key.startswith(head)] + [
        key for key in given if key not in wanted
    ]
    if unlike:
        raise MedscaleError(
            f"detect.pretrained: {path} does not fit the network: {', '.join(unlike[:5])}"
            + (f" and {len(unlike) - 5} more" if len(unlike) > 5 else "")
            + " are missing, unknown or of another shape"
        )
    network.load_state_dict(
        {k: v for k, v in given.items() if v.shape == wanted[k].shape}, strict=False
    )


def _prepare() -> None:
    """Have ultralytics neither fetch nor install anything, nor write outside a temporary folder of this process."""
    global _home
    require()
    if _home is None and "YOLO_CONFIG_DIR" not in os.environ:
        _home = tempfile.TemporaryDirectory(prefix="medscale-yolo-")
        os.environ["YOLO_CONFIG_DIR"] = _home.name
    os.environ |= {"YOLO_OFFLINE": "1", "YOLO_AUTOINSTALL": "false", "YOLO_VERBOSE": "false"}
