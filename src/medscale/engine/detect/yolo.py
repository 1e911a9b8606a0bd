"""YOLOv8 as a plain module, and its loss. Only this module imports ultralytics."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from medscale.base.environment import kept_environment
from medscale.base.errors import MedscaleError
from medscale.base.text import listed
from medscale.data.augment import MEAN, STD
from medscale.engine.detect.extra import require
from medscale.engine.models.registry import read_weights
from medscale.engine.plan import Model

# Read when ultralytics is imported.
SETTINGS = {"YOLO_OFFLINE": "1", "YOLO_AUTOINSTALL": "false", "YOLO_VERBOSE": "false"}
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
        # Filled on the device: a copy from the host could not be captured as a CUDA graph.
        mean, std = (
            torch.stack([images.new_full((1, 1), number) for number in v]) for v in (MEAN, STD)
        )
        raw = self.network(images * std + mean)
        return torch.cat([raw["boxes"], raw["scores"]], 1)

    def train(self, mode: bool = True) -> Yolo:
        """See ``nn.Module.train``.

        The head alone always trains: in evaluation it would decode boxes, which nobody reads, with
        numbers that it copies from the host for each shape of images. Its layers follow ``mode``.
        """
        super().train(mode)
        head: Any = self.network.get_submodule("model")
        head[-1].training = True
        return self


class BoxLoss:
    """Ultralytics' v8DetectionLoss: box (CIoU), class (BCE) and distribution focal loss.

    The loss of a batch of n images is n times the sum of these three terms. Each term is divided by
    the batch's sum of target scores (task-aligned assignment, Feng et al., ICCV 2021), but at least
    by 1. Images and scores are summed over replicas, so that the loss of a global batch does not
    depend on their number. In ultralytics' data-parallel training, each replica divides by the sum
    of its own share. While a network finds little, these sums are below 1, so that more replicas
    have a smaller loss. With ``recipe.accumulate``, each micro-batch is a batch.

    All anchors are computed, with weight 0 where no box is assigned, instead of a list of those
    with a box. The value is that of ultralytics except for rounding, but no tensor has a size that
    depends on the boxes. A CUDA graph can therefore capture the loss.

    The loss does not rank epochs. A network that finds nothing is assigned no targets, so that its
    loss is close to 0 and rises as it begins to find boxes. The weights of the last epoch are kept,
    at the end of the cosine schedule.

    Args:
        network: the network, on the device.
        size: pixels per side of the images.
        sum_over_replicas: replaces tensors by their sums over replicas; None where there is one.
    """

    judges = ranks = False

    def __init__(
        self,
        network: nn.Module,
        size: int,
        sum_over_replicas: Callable[[Sequence[Tensor]], None] | None = None,
    ) -> None:
        _prepare()
        from ultralytics.utils.loss import v8DetectionLoss
        from ultralytics.utils.tal import make_anchors

        assert isinstance(network, Yolo)
        self._loss: Any = v8DetectionLoss(network.network)
        self._assign = _assigner(self._loss.assigner)
        self._size, self._bins = size, 4 * int(self._loss.reg_max)
        strides = torch.as_tensor(self._loss.stride)
        sides = [size // int(stride) for stride in strides.tolist()]
        levels = [torch.empty(1, 1, side, side, device=self._loss.device) for side in sides]
        self._anchors, self._strides = make_anchors(levels, strides, 0.5)
        self._sum_over_replicas = sum_over_replicas

    def __call__(self, raw: Tensor, boxes: Tensor) -> Tensor:
        """Return the sum of losses, float32 scalar.

        Args:
            raw: outputs, shape n,4R+1,A.
            boxes: padded boxes (x, y, width, height), shape n,M,4.
        """
        distances, scores = (
            part.permute(0, 2, 1).contiguous() for part in raw.tensor_split([self._bins], 1)
        )
        corners = self._loss.bbox_decode(self._anchors, distances)  # n,A,4, in strides
        is_box = (boxes[..., 2:3] > 0).to(boxes.dtype)
        sides = boxes[..., 2:] * self._size
        centre = (boxes[..., :2] + boxes[..., 2:] / 2) * self._size  # as ultralytics rounds it
        _, truth, targets, positive, _ = self._assign(
            scores.detach().sigmoid(),
            corners.detach() * self._strides,
            self._anchors * self._strides,
            torch.zeros_like(is_box),
            torch.cat([centre - sides / 2, centre + sides / 2], 2),
            is_box,
        )
        # An anchor without a box gets its predicted one as truth, which keeps its terms finite.
        truth = torch.where(positive[..., None], truth / self._strides, corners.detach())
        images, total = self._over_replicas(len(raw), targets.sum())
        overlap, focal = self._box_terms(distances, corners, truth, targets)
        classes = self._loss.bce(scores, targets.to(scores.dtype)).sum()
        gains = self._loss.hyp
        terms = gains.box * overlap + gains.cls * classes + gains.dfl * focal
        return images * terms / total

    def join(self) -> None:
        """See ``Criterion``."""
        self._over_replicas(0, self._anchors.new_zeros(()))

    def _over_replicas(self, images: int, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sums of images and of target scores, the latter at least 1, over replicas."""
        sums = torch.stack([scores.new_full((), images), scores])
        if self._sum_over_replicas is not None:
            self._sum_over_replicas([sums])
        return sums[0], sums[1].clamp(min=1)

    def _box_terms(
        self, distances: Tensor, corners: Tensor, truth: Tensor, targets: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the CIoU loss and the distribution focal loss, each a sum weighted by scores.

        Args:
            distances: logits of the bins of each side, shape n,A,4R.
            corners: predicted boxes in strides, shape n,A,4.
            truth: assigned boxes in strides, shape n,A,4.
            targets: target scores, shape n,A,1; 0 where no box is assigned.
        """
        from ultralytics.utils.metrics import bbox_iou
        from ultralytics.utils.tal import bbox2dist

        overlap = 1 - bbox_iou(corners, truth, xywh=False, CIoU=True)
        count = self._bins // 4
        bins = torch.arange(count, device=truth.device)
        sides = bbox2dist(self._anchors, truth, count - 1)[..., None]
        # A side between two bins has the distance to one as weight of the other (Li et al.,
        # NeurIPS 2020). Picking the two bins instead (gather) would copy from the host in the
        # backward pass of PyTorch's deterministic mode.
        weights = (1 - (sides - bins).abs()).clamp(min=0)
        log_probabilities = distances.view(*sides.shape[:-1], count).log_softmax(-1)
        focal = -(log_probabilities * weights).sum(-1).mean(-1, keepdim=True)
        return (overlap * targets).sum(), (focal * targets).sum()

    def correct(self, raw: Tensor, boxes: Tensor) -> Tensor:
        """Return 0, as images are not judged."""
        return torch.zeros((), dtype=torch.int64, device=raw.device)

    @torch.no_grad()
    def decode(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """See ``task.BoxCriterion``."""
        distances = raw[:, : self._bins].permute(0, 2, 1).contiguous()
        corners = self._loss.bbox_decode(self._anchors, distances) * self._strides / self._size
        return corners.clamp(0, 1), raw[:, self._bins].sigmoid()


def _assigner(settings: Any) -> Any:
    """Return ultralytics' task-aligned assigner of one class, for a captured CUDA graph.

    Ultralytics lists the pairs of a box and an anchor inside it, copies a number from the host, and
    adds at indices, which in deterministic mode copies, too; the host waits for the GPU to do so.
    Here all pairs are computed.

    Args:
        settings: an assigner of ultralytics with the same settings.
    """
    from ultralytics.utils.tal import TaskAlignedAssigner

    class FixedAssigner(TaskAlignedAssigner):
        def get_box_metrics(  # type: ignore[override]
            self, scores: Tensor, boxes: Tensor, _: Tensor, truth: Tensor, candidates: Tensor
        ) -> tuple[Tensor, Tensor]:
            """Return alignments and overlaps of boxes and anchors, shape n,M,A."""
            overlaps = self.iou_calculation(truth[:, :, None], boxes[:, None]) * candidates
            return scores[:, None, :, 0].pow(self.alpha) * overlaps.pow(self.beta), overlaps

        def select_topk_candidates(  # type: ignore[override]
            self, metrics: Tensor, topk_mask: Tensor
        ) -> Tensor:
            """Return 1 for the anchors that align best with each box, int8, shape n,M,A."""
            best = torch.topk(metrics, self.topk, dim=-1).indices
            mask = torch.zeros_like(metrics, dtype=torch.int8).scatter_(-1, best, 1)
            return mask * topk_mask[..., :1]

        def select_candidates_in_gts(
            self, anchors: Tensor, truth: Tensor, is_box: Tensor, eps: float = 1e-9
        ) -> Tensor:
            """Return whether anchors (A,2) are inside boxes (n,M,4), shape n,M,A.

            Sides below the second stride are enlarged to it, as ultralytics 8.4.190 does.
            """
            smallest, sides = self.stride[1], truth[..., 2:] - truth[..., :2]
            half = torch.where((sides < smallest) & is_box.bool(), smallest, sides) / 2
            centre = (truth[..., :2] + truth[..., 2:]) / 2
            first, last = (centre - half)[:, :, None], (centre + half)[:, :, None]
            return ((anchors - first > eps) & (last - anchors > eps)).all(3)

    names = ("topk", "num_classes", "alpha", "beta", "stride")
    return FixedAssigner(**{name: getattr(settings, name) for name in names})


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
    installs a package where an image is damaged, and ``torch.save``; it also changes the threads of
    OpenCV, the printing of arrays, and environment variables such as OMP_NUM_THREADS, which child
    processes inherit. All of it is put back.
    """
    global _home
    require()
    folder = os.environ.get("YOLO_CONFIG_DIR")
    if folder is None:
        _home = _home or tempfile.TemporaryDirectory(prefix="medscale-yolo-")
        folder = _home.name
    opens, saves, threads = Image.open, torch.save, cv2.getNumThreads()
    with kept_environment(**SETTINGS, YOLO_CONFIG_DIR=folder), np.printoptions():
        import_module("ultralytics.utils.patches")
    Image.open, torch.save = opens, saves
    cv2.setNumThreads(threads)
