"""The networks: size, cut into stages, weights from files, and errors about what does not fit."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from medscale.base.errors import MedscaleError
from medscale.engine.models.names import check_name, timm_names
from medscale.engine.models.registry import build, load_weights, stages
from medscale.engine.plan import Model

SMALL = [
    ("tiny_cnn", {}, 16),
    ("xray_cnn", {"size": 32, "width": 4, "hidden": 8}, 32),
    ("medical_cnn", {"width": 8}, 64),
    ("resnet18", {"drop_rate": 0.2}, 32),
    ("efficientnet_b0", {"drop_rate": 0.2}, 32),
    ("densenet121", {"drop_rate": 0.2}, 32),
]


def test_medical_cnn_has_the_published_size() -> None:
    network = build(Model(name="medical_cnn"), 2)
    leaves = [module for module in network.modules() if not list(module.children())]
    assert len(leaves) == 129
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(22.5e6, rel=0.01)


def test_medical_cnn_begins_with_the_weights_of_he_et_al() -> None:
    torch.manual_seed(0)
    network = build(Model(name="medical_cnn", options={"width": 16}), 2)
    for name, part in network.named_modules():
        if isinstance(part, torch.nn.Conv2d | torch.nn.Linear):
            assert part.bias is None or not part.bias.any(), name
            count = part.weight.numel()
            # the gradient's variance is kept in convolutions, and the activations' in the head
            fan = count / part.weight.shape[1 if isinstance(part, torch.nn.Conv2d) else 0]
            deviations = 5 / (2 * count) ** 0.5
            spread = float(part.weight.detach().std())
            assert spread == pytest.approx((2 / fan) ** 0.5, rel=deviations), name


@pytest.mark.parametrize(("name", "options", "size"), SMALL)
def test_stages_in_a_row_are_the_network(name: str, options: dict[str, float], size: int) -> None:
    network = build(Model(name=name, options=options), 3)
    chain = stages(network)
    images = torch.rand(2, 3, size, size)
    for training in (False, True):
        network.train(training)
        for _, block in chain:
            block.train(training)
        torch.manual_seed(7)  # for dropout
        whole = network(images)
        torch.manual_seed(7)
        parts = images
        for _, block in chain:
            parts = block(parts)
        assert whole.shape == (2, 3)
        assert torch.equal(whole, parts), training
    parameter_names = {
        f"{name}.{key}" for name, block in chain for key, _ in block.named_parameters()
    }
    assert parameter_names == {key for key, _ in network.named_parameters()}


def test_a_network_of_unknown_order_is_not_cut() -> None:
    with pytest.raises(
        MedscaleError, match="cannot be cut into stages; model parallel runs, and training"
    ):
        stages(build(Model(name="vit_tiny_patch16_224"), 2))


def test_the_same_seed_gives_the_same_network() -> None:
    first, second = (_seeded() for _ in range(2))
    assert all(
        torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True)
    )


def _seeded() -> torch.nn.Module:
    torch.manual_seed(3)
    return build(Model(name="medical_cnn", options={"width": 8}), 2)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Model(name="resnt18"), "there is no model 'resnt18'; did you mean 'resnet18'"),
        (Model(name="resnet18.a1"), "there is no model 'resnet18.a1'; timm has .*resnet18.a1_in1k"),
        (Model(name="tiny_cnn", options={"depth": 3}), "unknown option depth; it has width"),
        (Model(name="medical_cnn", options={"width": 2}), "width is at least 4"),
        (Model(name="medical_cnn", options={"width": "wide"}), "width is 'wide', but must be"),
        (Model(name="xray_cnn", options={"size": 1}), "xray_cnn"),
        (
            Model(name="resnet18", options={"num_classes": 5}),
            "num_classes cannot be set among the options",
        ),
        (
            Model(name="resnet18", options={"wings": 2}),
            "its options .* are not possible .*; it has .*drop_rate",
        ),
        (Model(name="medical_cnn", pretrained="hub"), "has no weights on the hub"),
        (
            Model(name="medical_cnn", pretrained="nowhere.safetensors"),
            "nowhere.safetensors does not exist",
        ),
    ],
)
def test_a_network_that_cannot_be_built_is_reported(model: Model, message: str) -> None:
    with pytest.raises(MedscaleError, match=message):
        build(model, 2)


NESTED: dict[str, Any] = {}
for _ in range(600):
    NESTED = {"width": NESTED}


@pytest.mark.parametrize(
    "value", [NESTED, 10**5 + 1, -1e6, float("nan"), "x" * 201, {"a": 10**6}, [0] * 101, object()]
)
def test_options_that_are_large_or_nested_deeply_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="at most 100 options"):
        Model(name="resnet18", options={"width": value})


def test_options_may_be_as_large_as_the_limits() -> None:
    options = {"a": 10**5, "b": "x" * 200, "c": [[None, True, 1.5]] * 100, "d": {"e": (1,)}}
    assert Model(name="resnet18", options=options).options == options


@pytest.mark.parametrize("is_offline", [True, False])
def test_weights_from_the_hub_need_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd, is_offline: bool
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", is_offline)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # no answer
    monkeypatch.setattr("time.sleep", lambda _: None)  # the client waits between its attempts
    monkeypatch.setattr(logging.getLogger("medscale"), "propagate", True)
    monkeypatch.setattr(logging.getLogger("medscale"), "handlers", [])  # of an earlier test
    with (
        caplog.at_level(logging.INFO),
        pytest.raises(
            MedscaleError, match=r"could not be fetched from the hub .*give a .safetensors file"
        ),
    ):
        build(Model(name="resnet18.a1_in1k", pretrained="hub"), 2)
    assert "fetching the weights of resnet18.a1_in1k from the hub" in caplog.text
    assert capfd.readouterr() == ("", "")  # the client's messages of each attempt are not printed


def test_pretrained_weights_are_read_and_the_last_layer_may_differ(tmp_path: Path) -> None:
    source = build(Model(name="tiny_cnn"), 5)
    save_file(source.state_dict(), tmp_path / "weights.safetensors")
    five_classes = build(
        Model(name="tiny_cnn", pretrained=str(tmp_path / "weights.safetensors")), 5
    )
    assert all(
        torch.equal(a, b)
        for a, b in zip(source.parameters(), five_classes.parameters(), strict=True)
    )
    two_classes = build(Model(name="tiny_cnn", pretrained=str(tmp_path / "weights.safetensors")), 2)
    equal_tensors = [
        torch.equal(a, b)
        for a, b in zip(source.parameters(), two_classes.parameters(), strict=True)
        if a.shape == b.shape
    ]
    assert equal_tensors
    assert all(equal_tensors)
    assert two_classes(torch.rand(1, 3, 16, 16)).shape == (1, 2)


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    network = build(Model(name="tiny_cnn"), 2)
    state = network.state_dict()
    first, *_, last = state
    path = tmp_path / "weights.safetensors"
    save_file({key: value for key, value in state.items() if key != first}, path)
    with pytest.raises(MedscaleError, match=rf"does not fit the model \(missing: {first}\)"):
        load_weights(network, path)
    save_file({**state, "extra.weight": torch.zeros(1)}, path)
    with pytest.raises(MedscaleError, match=r"unknown: extra.weight"):
        load_weights(network, path)
    save_file({**state, first: torch.zeros(1)}, path)
    with pytest.raises(MedscaleError, match=f"of another shape: {first}"):
        load_weights(network, path)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(MedscaleError, match=r"is no valid .safetensors file"):
        load_weights(network, path)
    assert last in network.state_dict()


def test_the_names_that_are_read_from_files_are_those_of_timm() -> None:
    from timm.models import _registry

    assert timm_names() == set(_registry._model_entrypoints)


def test_known_names_need_no_pytorch() -> None:
    for name in ("medical_cnn", "xray_cnn", "tiny_cnn", "efficientnet_b3", "densenet121"):
        check_name(name)


@pytest.mark.parametrize(
    ("name", "options", "learns", "rests"),
    [
        ("medical_cnn", {"width": 8}, ("context.project", "head"), ("stem", "stage4.1")),
        ("xray_cnn", {"size": 32}, ("conv2", "fc1", "fc2"), ("conv1",)),
        (
            "test_efficientnet",
            {},
            ("blocks.4", "conv_head", "classifier"),
            ("conv_stem", "blocks.3"),
        ),
        (
            "densenet121",
            {},
            ("features.denseblock4", "features.norm5", "classifier"),
            ("features.denseblock3",),
        ),
        ("resnet18", {}, ("layer4.1", "fc"), ("conv1", "layer3", "layer4.0")),
    ],
)
def test_the_last_block_or_layer_learns_and_the_rest_keeps_its_weights(
    name, options, learns, rests
) -> None:
    block = build(Model(name=name, options=options, trained="last_block"), 3)
    trained = {key for key, p in block.named_parameters() if p.requires_grad}
    assert all(any(key.startswith(f"{part}.") for key in trained) for part in learns)
    assert not any(key.startswith(f"{part}.") for key in trained for part in rests)
    layer = build(Model(name=name, options=options, trained="last_layer"), 3)
    last = {key.rsplit(".", 1)[0] for key, p in layer.named_parameters() if p.requires_grad}
    assert len(last) == 1
    assert isinstance(layer.get_submodule(last.pop()), torch.nn.Linear)


def test_metadata_add_to_the_logits_and_begin_with_nothing() -> None:
    torch.manual_seed(0)
    network = build(Model(name="tiny_cnn"), 3, features=4)
    images, features = torch.randn(5, 3, 16, 16), torch.randn(5, 4)
    torch.testing.assert_close(network((images, features)), network.image(images))
    torch.nn.init.ones_(network.metadata[2].weight)
    assert not torch.allclose(network((images, features)), network.image(images))
