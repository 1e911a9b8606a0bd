"""YOLOv8 itself: its network, its loss and its weights."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from threading import Barrier, get_ident

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from medscale.base.errors import MedscaleError
from medscale.data.augment import MEAN, STD
from medscale.engine.detect.yolo import build
from medscale.engine.plan import Model

SIZE = 64


ULTRALYTICS = pytest.mark.skipif(
    find_spec("ultralytics") is None,
    reason="ultralytics (AGPL, optional) is not installed: YOLOv8 itself is not tested",
)


@ULTRALYTICS
def test_yolov8n_gives_one_tensor_and_a_loss_that_teaches_every_parameter():
    from medscale.engine.detect.yolo import BoxLoss, build
    from medscale.engine.plan import Model

    torch.manual_seed(0)
    network = build(Model(name="yolov8n"))
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(3.01e6, rel=0.01)
    criterion = BoxLoss(network, SIZE)
    images = torch.randn(2, 3, SIZE, SIZE)
    targets = torch.tensor([[[0.2, 0.3, 0.4, 0.4]], [[0.0, 0.0, 0.0, 0.0]]])
    raw = network(images)
    assert raw.shape == (2, 65, 84)
    assert network.eval()(images).shape == raw.shape
    criterion(raw, targets).backward()
    assert all(p.grad is not None for p in network.parameters() if p.requires_grad)
    empty = criterion(network.train()(images), torch.zeros(2, 1, 4))
    assert torch.isfinite(empty)
    corners, confidence = criterion.decode(raw)
    assert corners.shape == (2, 84, 4)
    assert confidence.shape == (2, 84)
    assert ((corners >= 0) & (corners <= 1)).all()


@ULTRALYTICS
def test_images_and_boxes_are_those_of_ultralytics():
    from medscale.engine.detect.yolo import BoxLoss

    network = build(Model(name="yolov8n")).eval()
    pixels = torch.rand(2, 3, SIZE, SIZE)
    normalized = (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    with torch.no_grad():
        corners, confidence = BoxLoss(network, SIZE).decode(network(normalized))
        network.network.eval()  # with the head, which then decodes boxes itself, in pixels
        x, y, width, height, expected = network.network(pixels)[0].unbind(1)
    sides = torch.stack([width, height], 2) / SIZE
    centre = torch.stack([x, y], 2) / SIZE
    expected_corners = torch.cat([centre - sides / 2, centre + sides / 2], 2).clamp(0, 1)
    torch.testing.assert_close(corners, expected_corners, rtol=0, atol=1e-5)
    torch.testing.assert_close(confidence, expected, rtol=1e-4, atol=1e-6)


def listed_loss(criterion, raw, targets, size=SIZE):
    """Ultralytics' own loss of the same boxes, which lists anchors with a box."""
    image, number = (targets[..., 2] > 0).nonzero(as_tuple=True)
    corner, sides = targets[image, number].split(2, dim=1)
    batch = {"batch_idx": image, "cls": torch.zeros_like(image)}
    batch["bboxes"] = torch.cat([corner + sides / 2, sides], 1)
    levels = [torch.empty(1, 1, size // stride, size // stride) for stride in (8, 16, 32)]
    outputs = {"boxes": raw[:, :64], "scores": raw[:, 64:], "feats": levels}
    return criterion._loss(outputs, batch)[0].sum()


@ULTRALYTICS
@pytest.mark.parametrize("most", [1, 3])
@pytest.mark.parametrize(
    ("largest", "size"),
    [(0.02, SIZE), (0.6, SIZE), (0.95, 320)],  # the last has sides of more than 15 strides
)
def test_the_loss_of_fixed_sizes_is_that_of_ultralytics(most, largest, size):
    from medscale.engine.detect.yolo import BoxLoss

    criterion = BoxLoss(build(Model(name="yolov8n")), size)
    anchors = sum((size // stride) ** 2 for stride in (8, 16, 32))
    torch.manual_seed(most)
    corner = torch.rand(6, most, 2) * 0.7
    targets = torch.cat([corner, torch.rand(6, most, 2).mul(largest).minimum(1 - corner)], 2)
    targets[torch.arange(most) >= torch.tensor([0, 1, most, most, most, 1])[:, None]] = 0
    listed = partial(listed_loss, criterion, size=size)
    raws = [2 * torch.randn(6, 65, anchors).requires_grad_() for _ in range(3)]
    for raw in raws:
        values = [loss(raw, targets) for loss in (criterion, listed)]
        gradients = [torch.autograd.grad(value, raw)[0] for value in values]
        torch.testing.assert_close(*values, rtol=1e-6, atol=0)
        torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)
    empty = torch.zeros(6, most, 4)
    torch.testing.assert_close(criterion(raw, empty), listed(raw, empty))


class Replicas:
    """Losses of replicas that are threads; ``add`` gives each of them the sum of all."""

    def __init__(self, count: int) -> None:
        self._barrier, self._values = Barrier(count), {}

    def add(self, tensors) -> None:
        self._values[get_ident()] = [tensor.clone() for tensor in tensors]
        self._barrier.wait(timeout=60)
        for tensor, parts in zip(tensors, zip(*self._values.values(), strict=True), strict=True):
            tensor.copy_(sum(parts))


@ULTRALYTICS
@pytest.mark.parametrize("images", [4, 6])  # of the first of two replicas, of six
@pytest.mark.parametrize("shift", [-4, 4])  # of outputs: the sum of scores is 0.6 and 1.2
def test_the_loss_of_a_global_batch_does_not_depend_on_the_number_of_replicas(images, shift):
    from medscale.engine.detect.yolo import BoxLoss

    torch.manual_seed(0)
    network = build(Model(name="yolov8n"))
    raw, targets = (torch.randn(6, 65, 84) + shift).requires_grad_(), torch.zeros(6, 2, 4)
    targets[:, 0] = torch.tensor([0.2, 0.3, 0.4, 0.4])
    targets[1, 1] = torch.tensor([0.5, 0.1, 0.3, 0.2])
    serial = BoxLoss(network, SIZE)(raw, targets)
    replicas = Replicas(2)
    criteria = [BoxLoss(network, SIZE, replicas.add) for _ in range(2)]
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(criteria[0], raw[:images], targets[:images])
        if images < 6:
            second = threads.submit(criteria[1], raw[images:], targets[images:])
        else:
            second = threads.submit(criteria[1].join)
        losses = [future.result() for future in (first, second)]
    total = sum(loss for loss in losses if loss is not None)
    torch.testing.assert_close(total, serial)
    torch.testing.assert_close(*(torch.autograd.grad(loss, raw)[0] for loss in (total, serial)))


class Operators(TorchDispatchMode):
    """The names of the operators that are called, also in backward passes."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@ULTRALYTICS
def test_the_loss_adds_at_no_indices_which_deterministic_kernels_copy_from_the_host():
    from medscale.engine.detect.yolo import BoxLoss

    criterion = BoxLoss(build(Model(name="yolov8n")), SIZE)
    raw, targets = torch.randn(2, 65, 84).requires_grad_(), torch.full((2, 3, 4), 0.25)
    refused = {"scatter_add", "scatter_add_", "gather", "nonzero", "index_put", "index_put_"}
    with Operators() as operators:
        criterion(raw, targets).backward()
    assert "topk" in operators.names
    assert not operators.names & refused
    with Operators() as operators:
        listed_loss(criterion, raw, targets).backward()
    assert {"gather", "nonzero"} <= operators.names


@ULTRALYTICS
def test_network_and_loss_read_no_tensor_from_the_host(monkeypatch):
    from medscale.engine.detect.yolo import BoxLoss

    network = build(Model(name="yolov8n"))
    criterion = BoxLoss(network, SIZE)
    targets = torch.tensor([[[0.2, 0.3, 0.4, 0.4]], [[0.0, 0.0, 0.0, 0.0]]])
    monkeypatch.setattr(torch, "tensor", None)  # a copy from the host waits for a GPU
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        inputs = fake.from_tensor(torch.zeros(2, 3, SIZE, SIZE)), fake.from_tensor(targets)
        for mode in (True, False):
            assert criterion(network.train(mode)(inputs[0]), inputs[1]).shape == ()
        with pytest.raises(DynamicOutputShapeException):
            listed_loss(criterion, network(inputs[0]), inputs[1])


@ULTRALYTICS
def test_weights_are_read_from_safetensors_and_a_pickle_is_refused(tmp_path):
    from medscale.engine.detect.yolo import build
    from medscale.engine.plan import Model

    torch.manual_seed(0)
    first = build(Model(name="yolov8n"))
    path = tmp_path / "weights.safetensors"
    save_file(first.state_dict(), path)
    restored_network = build(Model(name="yolov8n", pretrained=str(path)))
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            first.state_dict().values(), restored_network.state_dict().values(), strict=True
        )
    )
    weights = {key.removeprefix("network."): value for key, value in first.state_dict().items()}
    layer = "model.22.cv3.0.2"  # the logits of classes, 80 in ultralytics' published weights
    weights |= {f"{layer}.weight": torch.ones(80, 64, 1, 1), f"{layer}.bias": torch.ones(80)}
    save_file(weights, path)
    one_class = build(Model(name="yolov8n", pretrained=str(path))).state_dict()
    differing = {
        name for name, value in first.state_dict().items() if not value.equal(one_class[name])
    }
    assert differing == {f"network.{layer}.weight"}, "the biases are no random numbers"
    with pytest.raises(MedscaleError, match="is a pickle"):
        build(Model(name="yolov8n", pretrained="yolov8n.pt"))
    save_file({"else": torch.zeros(1)}, path)
    with pytest.raises(MedscaleError, match="does not fit the network"):
        build(Model(name="yolov8n", pretrained=str(path)))


@ULTRALYTICS
def test_ultralytics_leaves_the_libraries_of_others_as_they_are():
    build(Model(name="yolov8n"))
    assert Image.open.__module__ == "PIL.Image"
    assert torch.save.__module__ == "torch.serialization"
