"""The time that a device needs to train on an image, from measurements or the device's peaks.

- If docs/gpu.csv has card, network and number format: the measured rate. Its networks have no
  options that change their speed.
- Otherwise the time of the operations at the device's peak, plus the time of the memory traffic at
  its bandwidth, divided by the share of both that training reaches. These are the ceilings of
  Williams, Waterman & Patterson (CACM 2009); their times are added, since layers that are limited
  by one and by the other alternate. The share is the median of the networks that docs/gpu.csv has
  for the card, or the configured one.
- DDP and FSDP keep the part of the serial rate that they have on one card in docs/gpu.csv, or the
  configured one on several devices.
"""

from __future__ import annotations

from statistics import median

from medscale.base.errors import MedscaleError
from medscale.config.configuration import Config
from medscale.engine import card_rates
from medscale.engine.formats import NumberFormat
from medscale.engine.plan import RunPlan
from medscale.resources.machines import DeviceKind, Network

# Transfers of an activation: the forward pass writes and reads it, the backward pass moves about
# twice as much.
TRAFFIC = 6


def device(config: Config, plan: RunPlan) -> DeviceKind:
    """Return the kind of device that trains a plan, see ``kind_of``; CPUs can stand in for GPUs."""
    return kind_of(config, plan.backend)


def kind_of(config: Config, backend: str) -> DeviceKind:
    """Return the kind of device of a backend, ``cuda`` or ``cpu``.

    Raises:
        MedscaleError: when ``cost.devices`` does not have it.
    """
    name = config.cost.gpu if backend == "cuda" else config.cost.cpu
    if name not in config.cost.devices:
        names = ", ".join(config.cost.devices) or "none"
        raise MedscaleError(
            f"cost.devices has no {name!r} (there are: {names}); describe it in config.yaml"
        )
    return config.cost.devices[name]


def network(config: Config, plan: RunPlan) -> Network:
    """Return the network's cost of an image of the plan's size and of the plan's width.

    It is proportional to the image's area.
    """
    row = config.cost.networks.get(plan.model.name, config.cost.unknown)
    row = _scaled(row, pixels(config, plan))
    option = plan.model.options.get("width")
    width = option / row.width if row.width and isinstance(option, int | float) else 1
    return row.model_copy(
        update={
            "gflops": row.gflops * width**2,
            "activations_m": row.activations_m * width,
            "parameters_m": row.parameters_m * width**2,
        }
    )


def pixels(config: Config, plan: RunPlan) -> int:
    """Return the side in pixels of the network's input images."""
    if plan.detect is not None:
        return plan.detect.size
    return plan.augment.crop.size if plan.augment.crop else config.study(plan.study).preprocess.size


def number_format(config: Config, plan: RunPlan) -> NumberFormat:
    """Return the number format in which a plan is expected to be trained."""
    has_tf32 = device(config, plan).tflops_tf32 is not None
    if not plan.run.amp:
        return "tf32" if plan.recipe.tf32 and has_tf32 else "fp32"
    if plan.recipe.half != "auto":
        return plan.recipe.half
    return "bf16" if has_tf32 or plan.backend == "cpu" else "fp16"  # both came with the A100


def measured_rate(config: Config, plan: RunPlan) -> card_rates.Rate | None:
    """Return the rate that ``make bench-gpu`` measured for this training and card; None without."""
    card = _measured_card(config, plan)
    return None if card is None else card_rates.rate(card, *_cell(config, plan))


def strategy_share(config: Config, plan: RunPlan) -> float:
    """Return the part of the devices' speed that a strategy keeps, without the bytes exchanged."""
    card, strategy = _measured_card(config, plan), plan.run.strategy
    if card is not None:
        measured = card_rates.strategy_share(card, *_cell(config, plan), strategy)
        if measured is not None:
            return measured
    return config.cost.strategies[strategy].share if plan.run.devices > 1 else 1.0


def device_share(config: Config, plan: RunPlan) -> float:
    """Return the share of the device's peaks that training reaches with an average network."""
    kind, number = device(config, plan), number_format(config, plan)
    if kind.card is None:
        return kind.share
    shares = [
        config.cost.trained["all"]
        * _peak_seconds(kind, _scaled(config.cost.networks[name], rate.size), number)
        * rate.images_per_second
        / config.cost.networks[name].share
        for name, rate in card_rates.rates(kind.card, number)
        if name in config.cost.networks
    ]
    return median(shares) if shares else kind.share


def image_seconds(config: Config, plan: RunPlan) -> float:
    """Return the seconds of training per image on one device, without the overhead of steps."""
    kind, net = device(config, plan), network(config, plan)
    factor = config.cost.trained[plan.model.trained]
    if (rate := measured_rate(config, plan)) is not None:
        area = (pixels(config, plan) / rate.size) ** 2
        return area / rate.images_per_second * factor / config.cost.trained["all"]
    forward = _peak_seconds(kind, net, number_format(config, plan))
    return factor * forward / (device_share(config, plan) * net.share)


def _measured_card(config: Config, plan: RunPlan) -> str | None:
    """Return PyTorch's name of the card; None if docs/gpu.csv can have no row of this training.

    It has none of devices without ``card``, nor of networks with options that change their speed.
    """
    return device(config, plan).card if card_rates.has_usual_speed(plan.model) else None


def _cell(config: Config, plan: RunPlan) -> tuple[str, str, int]:
    """Return a plan's values in the columns network, format and batch of docs/gpu.csv."""
    return plan.model.name, number_format(config, plan), plan.images_at_a_time


def _peak_seconds(kind: DeviceKind, net: Network, number: NumberFormat) -> float:
    """Return the seconds of the forward pass of an image at the device's peaks."""
    peaks = {"fp32": kind.tflops, "tf32": kind.tflops_tf32}
    tflops = peaks.get(number) or kind.tflops_amp
    width = 2 if number in ("bf16", "fp16") else 4  # bytes of a number
    traffic = TRAFFIC / 3 * width * net.activations_m
    return net.gflops / (1e3 * tflops) + traffic / (1e3 * kind.memory_gb_s)


def _scaled(net: Network, size: int) -> Network:
    """Return the cost of an image of ``size`` pixels per side: proportional to its area."""
    area = (size / net.size) ** 2
    return net.model_copy(
        update={
            "size": size,
            "gflops": net.gflops * area,
            "activations_m": net.activations_m * area,
        }
    )
