"""Tests of the cost model against measured and published times, and on odd configurations."""

import subprocess
import sys
from pathlib import Path

import pytest

from medscale.base.errors import MedscaleError
from medscale.base.files import write_json
from medscale.config.configuration import Config, load
from medscale.config.planning import plan
from medscale.engine.plan import RunPlan
from medscale.resources import compute, cost

ROOT = Path(__file__).parents[2]
# Images a second of the demo's serial runs on one core of an AMD EPYC (Zen 4), PyTorch 2.14.
SERIAL = {
    "dermatology/serial_1gpu": 67,
    "glaucoma/serial_1cpu": 567,
    "melanoma/serial_1gpu": 505,
    "pneumonia/serial_1cpu": 200,
    "pneumonia/serial_1gpu_yolov8n": 65,
    "skin/serial_1gpu": 1168,
    "skin/serial_amp_1gpu": 776,
}
SPREAD = {
    "dermatology/ddp_amp_2gpu": 76,
    "glaucoma/ddp_2gpu": 541,
    "glaucoma/fsdp_2gpu": 251,
    "glaucoma/mp_2gpu": 316,
    "melanoma/ddp_2gpu": 680,
    "pneumonia/ddp_2gpu_yolov8n": 69,
    "pneumonia/ddp_2cpu": 335,
    "skin/ddp_2gpu": 1080,
}


@pytest.fixture
def demo(tmp_path: Path) -> Config:
    return load(ROOT / "config.yaml", {"scale": "demo", "workdir": str(tmp_path)})


@pytest.fixture
def full(tmp_path: Path) -> Config:
    return load(ROOT / "config.yaml", {"workdir": str(tmp_path)})


def of(config: Config, name: str) -> RunPlan:
    return plan(config, *name.split("/"), 1)


@pytest.mark.parametrize(("names", "max_ratio"), [(SERIAL, 1.5), (SPREAD, 2.0)])
def test_the_demos_speed_is_met_within_a_factor(
    demo: Config, names: dict[str, float], max_ratio: float
) -> None:
    for name, measured in names.items():
        ratio = cost.images_per_second(demo, of(demo, name)) / measured
        assert 1 / max_ratio < ratio < max_ratio, (name, ratio)


def test_published_trainings_of_resnet50_are_met(full: Config) -> None:
    # NVIDIA DeepLearningExamples, ResNet-50 v1.5: images/s on one A100 80 GB (TF32, AMP) and
    # one V100 (FP32, AMP)
    study = full.studies["melanoma_all"]
    settings = study.model_copy(
        update={"recipe": study.recipe.model_copy(update={"batch_size": 256, "tf32": True})}
    )
    full = full.model_copy(update={"studies": {**full.studies, "melanoma_all": settings}})
    for gpu, run, published in (
        ("a100", "serial_1gpu", 938),
        ("a100", "serial_amp_1gpu", 2470),
        ("v100", "serial_1gpu", 367),
        ("v100", "serial_amp_1gpu", 1200),
    ):
        config = full.model_copy(update={"cost": full.cost.model_copy(update={"gpu": gpu})})
        ratio = cost.images_per_second(config, of(config, f"melanoma_all/{run}")) / published
        assert 0.6 < ratio < 1.4, (gpu, run, ratio)


def test_the_glaucoma_projects_cpu_hours_are_met(full: Config) -> None:
    # 756 minutes on one worker and 62.3 on 32, for 20 epochs of 8,621 images (reported.yaml)
    for workers, published in ((1, 756.0), (32, 62.3)):
        name = "ddp_32cpu" if workers == 32 else "serial_1cpu"
        minutes = 20 * 8621 / cost.images_per_second(full, of(full, f"glaucoma/{name}")) / 60
        assert 0.6 < minutes / published < 1.5, (workers, minutes)


def test_strong_scaling_of_published_efficientnets_to_64_gpus(full: Config) -> None:
    # EfficientNet-B4 with AMP on 8 and 64 A100: 7.75 and 57.0 times one (the same source)
    config = full.model_copy(update={"node": full.node.model_copy(update={"gpus": 8})})
    one_gpu = cost.images_per_second(config, of(config, "skin/ddp_amp_1gpu"))
    for devices, published in ((8, 7.75), (64, 57.0)):
        ratio = cost.images_per_second(config, of(config, f"skin/ddp_amp_{devices}gpu")) / one_gpu
        assert ratio == pytest.approx(published, rel=0.12), (devices, ratio)


def test_more_work_costs_more(full: Config) -> None:
    def minutes(name: str) -> float:
        return cost.estimate(full, of(full, name)).minutes

    assert minutes("skin/ddp_amp_4gpu_efficientnet_b7") > minutes(
        "skin/ddp_amp_4gpu_efficientnet_b5"
    )
    assert (
        minutes("skin/serial_1gpu") > minutes("skin/serial_amp_1gpu") > minutes("skin/ddp_amp_4gpu")
    )
    assert minutes("melanoma_all/serial_1gpu") > minutes("melanoma/serial_1gpu") > 0
    few, many = (cost.estimate(full, of(full, f"glaucoma/ddp_{n}cpu")) for n in (2, 32))
    assert many.memory_mb > few.memory_mb


def test_requested_memory_covers_that_of_the_demo(demo: Config) -> None:
    for name, used_mb in (
        ("dermatology/serial_1gpu", 1259),
        ("glaucoma/ddp_2cpu", 1831),
        ("pneumonia/fsdp_2gpu", 2193),
    ):
        requested_mb = cost.estimate(demo, of(demo, name)).memory_mb
        assert used_mb + 560 < requested_mb < 3 * used_mb, (
            name,
            requested_mb,
        )  # 560 MB: the launcher beside the ranks


def with_cost(config: Config, **changes: object) -> Config:
    """Return the configuration with other settings of the cost model, or of its A100."""
    own = {key: changes.pop(key) for key in [*changes] if key in type(config.cost).model_fields}
    a100 = config.cost.devices["a100"].model_copy(update=changes)
    devices = {**config.cost.devices, "a100": a100}
    return config.model_copy(
        update={"cost": config.cost.model_copy(update={"devices": devices, **own})}
    )


def test_memory_by_hand(full: Config) -> None:
    """Adam: four numbers of 4 bytes for each parameter; an activation and its gradient."""
    serial = of(full, "skin/serial_1gpu")
    net, batch = compute.network(full, serial), serial.global_batch
    states, activations = 16 * net.parameters_m, 8 * batch * net.activations_m
    halves = serial.recipe.model_copy(update={"accumulate": 2})
    for run_plan, expected in (
        (serial, states + activations),
        (of(full, "skin/serial_amp_1gpu"), states + activations / 2),
        (of(full, "skin/ddp_4gpu"), states + activations),
        (of(full, "skin/fsdp_4gpu"), states / 4 + activations),
        (of(full, "skin/mp_4gpu"), states / 4 + activations / 4),
        (of(full, "skin/ddp_mp_4gpu"), states / 2 + activations / 2),
        (serial.model_copy(update={"recipe": halves}), states + activations / 2),
    ):
        mb = cost.estimate(full, run_plan).device_mb
        assert mb == pytest.approx(expected, abs=1), run_plan.run.name
    settings = {"margin": 1.0, "launcher_mb": 100.0, "rank_mb": 10.0, "cuda_mb": 5.0}
    split = cost.images(full, "skin")["train"] * 3 * 256**2 / 1e6  # it is copied to each GPU
    run_plan = of(full, "skin/ddp_4gpu")
    for memory_gb, expected in ((2.1 * split / 1000, 100 + 4 * (15 + split)), (1.0, 100 + 4 * 15)):
        config = with_cost(full, memory_gb=memory_gb, **settings)
        assert cost.estimate(config, run_plan).memory_mb == pytest.approx(expected, abs=1)


def test_the_time_of_a_ring_by_hand(full: Config) -> None:
    """Each device sends and receives its part of the 4-byte gradients 2 (n - 1) times."""
    gradients = 4e6 * compute.network(full, of(full, "skin/ddp_4gpu")).parameters_m
    config = with_cost(full, link_gb_s=100.0, network_gb_s=10.0)
    for name, expected in (
        ("serial_1gpu", 0),
        ("mp_4gpu", 0),
        ("ddp_4gpu", 6 / 4 * gradients / 100e9),
        ("fsdp_4gpu", 1.5 * 6 / 4 * gradients / 100e9),
        ("ddp_mp_4gpu", 2 / 2 * gradients / 2 / 100e9),  # two replicas of two stages
        ("ddp_8gpu", 14 / 8 * gradients / 10e9),  # on two nodes
    ):
        seconds = cost.allreduce_seconds(config, of(config, f"skin/{name}"))
        assert seconds == pytest.approx(expected), name


def test_the_time_of_a_replicate_by_hand(full: Config) -> None:
    """An image of validation or prediction takes the forward part of one of training."""
    # Half of the radiographs have boxes: the others are no images of the detection's epochs.
    for study, run, used in (("skin", "serial_1gpu", 1), ("pneumonia", "ddp_2gpu_yolov8n", 0.5)):
        run_plan, counts = of(full, f"{study}/{run}"), cost.images(full, study)
        estimate = cost.estimate(with_cost(full, start_s=50.0, watts=400.0, price=3.0), run_plan)
        rate = estimate.images_per_second
        forward = full.cost.trained["all"] * rate
        epoch = used * (counts["train"] / rate + counts["val"] / forward)
        predictions = (counts["val"] + counts["test"]) / forward
        minutes = (50 + run_plan.recipe.epochs * epoch + predictions) / 60
        assert estimate.minutes == pytest.approx(minutes)
        hours = run_plan.run.devices * minutes / 60
        assert estimate.device_hours == pytest.approx(hours)
        assert estimate.energy_kwh == pytest.approx(0.4 * hours)
        assert estimate.money == pytest.approx(3 * hours)


def test_the_bubble_of_a_pipeline_by_hand(full: Config) -> None:
    """Of four stages, m microbatches take m + 3 turns of 1 / m of the batch."""
    config = with_cost(full, step_ms=0.0, sync_ms=0.0, contention=0.0, load_per_process=1e9)
    run_plan = of(config, "skin/mp_4gpu")
    few, many = (
        cost.step_seconds(
            config,
            run_plan.model_copy(
                update={"parallel": run_plan.parallel.model_copy(update={"microbatches": count})}
            ),
        )
        for count in (2, 6)
    )
    assert few / many == pytest.approx((5 / 2) / (9 / 6))


def test_a_step_of_replicas_of_pipelines_by_hand(full: Config) -> None:
    """Two replicas of two stages; DDP and pipeline each keep a part of the devices' speed."""
    usual = full.cost.strategies
    strategies = {
        **usual,
        "ddp": usual["ddp"].model_copy(update={"share": 0.5, "syncs": 2.0}),
        "mp": usual["mp"].model_copy(update={"share": 0.8, "syncs": 3.0}),
    }
    changes = {"card": None, "step_ms": 0.0, "sync_ms": 10.0, "contention": 0.1}
    config = with_cost(full, strategies=strategies, exposed=0.0, load_per_process=1e9, **changes)
    run_plan = of(config, "skin/ddp_mp_4gpu")
    images, parts = run_plan.global_batch / 2, run_plan.parallel.microbatches
    compute_s = images * compute.image_seconds(config, run_plan) / 2 / 0.5 / 0.8
    expected = 1.3 * compute_s * (parts + 1) / parts + (2 + 3) * 0.010
    assert cost.step_seconds(config, run_plan) == pytest.approx(expected)
    one = of(config, "skin/serial_1gpu")  # it exchanges nothing and keeps its speed
    alone = one.global_batch * compute.image_seconds(config, one)
    assert cost.step_seconds(config, one) == pytest.approx(alone)


def test_kernels_are_launched_for_each_part_of_a_batch(full: Config) -> None:
    config = with_cost(full, step_ms=1e6, load_per_process=1e9)
    run_plan = of(config, "skin/serial_1gpu")
    recipe = run_plan.recipe.model_copy(update={"accumulate": 3})
    in_parts = run_plan.model_copy(update={"recipe": recipe})
    assert cost.step_seconds(config, run_plan) == pytest.approx(1000)
    assert cost.step_seconds(config, in_parts) == pytest.approx(3000)


def test_the_time_of_an_evaluation_by_hand(full: Config) -> None:
    """The time is proportional to predicted images, classes and seeds."""
    study = full.study("skin").model_copy(update={"classes": ["a", "b", "c"], "seeds": [1, 2]})
    config = full.model_copy(update={"studies": {**full.studies, "skin": study}})
    config = with_cost(config, start_s=6.0, evaluate_us=30.0)
    images = 17_150 + 73_500  # of the 245,000: 7 % for validation, 30 % for the test
    minutes = cost.preparation(config, "skin", 4)["evaluate"]
    assert minutes == pytest.approx((6 + 30e-6 * images * 3 * 2) / 60)
    split = type(study.split).model_validate({"folds": 5, "val": 0.1})
    study = study.model_copy(update={"split": split})
    config = config.model_copy(update={"studies": {**config.studies, "skin": study}})
    images = 245_000 + 5 * 24_500  # each is tested once, and a tenth validates each fold
    minutes = cost.preparation(config, "skin", 4)["evaluate"]
    assert minutes == pytest.approx((6 + 30e-6 * images * 3 * 2) / 60)


def test_the_times_of_index_and_shards_by_hand(full: Config) -> None:
    """Each worker hashes the bytes of its files, and then decodes its images."""
    config = with_cost(full, start_s=6.0, index_per_core=200.0, hash_mb_s=50.0, report_us=100.0)
    minutes = cost.preparation(config, "skin", 4)  # 245,000 images of 0.05 MB, 500 a second
    assert minutes["index"] == pytest.approx((6 + 245_000 * (1 / 200 + 0.05 / 50) / 4) / 60)
    assert minutes["shards"] == pytest.approx((6 + 245_000 / 500 / 4) / 60)
    assert minutes["report"] == pytest.approx((6 + 60 + 24.5) / 60)


def test_disk_space_by_hand(full: Config) -> None:
    """Weights of 4-byte numbers; a checkpoint has Adam's two moments, too; two are kept."""
    study = full.study("melanoma_last_layer").model_copy(update={"classes": ["a", "b"]})
    config = full.model_copy(update={"studies": {**full.studies, "melanoma_last_layer": study}})
    disk, weights = cost.storage(config, "melanoma_last_layer"), 4 * 23.58
    rows = 2750 * 8 * (2 + 3) / 1e6  # of predictions.parquet
    assert disk["runs"] == pytest.approx(3 * (weights + rows))  # three seeds
    assert disk["checkpoints"] == pytest.approx(2 * 3 * weights)
    assert disk["raw"] == 0  # those of melanoma
    both = 12_024 * 3 * (128**2 + 416**2) / 1e6
    assert cost.storage(full, "pneumonia")["shards"] == pytest.approx(both)  # detection's, too
    assert cost.storage(full, "pneumonia_metadata")["shards"] == pytest.approx(
        12_024 * 3 * 0.128**2
    )


def test_a_measured_replicate_is_preferred_where_its_plan_is_the_same(demo: Config) -> None:
    run_plan = of(demo, "glaucoma/ddp_2cpu")
    folder = demo.workdir / "runs" / "glaucoma" / "ddp_2cpu" / "seed2"
    timing = {
        "wall_seconds": 112.0,
        "images_per_second": 50.0,
        "restarts": 0,
        "peak_memory_mb": {"host": [900, 1000]},
    }
    write_json(folder / "timing.json", timing)
    write_json(
        folder / "spec.json", run_plan.model_copy(update={"seed": 2}).model_dump(mode="json")
    )
    estimate = cost.estimate(demo, run_plan)
    assert estimate.measured
    assert estimate.minutes == pytest.approx((112.0 + demo.cost.start_s) / 60)
    assert estimate.images_per_second == 50
    assert estimate.memory_mb == pytest.approx(
        demo.cost.margin * (1900 + demo.cost.launcher_mb), abs=1
    )
    assert not cost.estimate(demo, run_plan, measured=False).measured
    for number, seconds in ((3, 212.0), (4, 1e6)):  # the fourth was restarted and does not count
        folder = folder.with_name(f"seed{number}")
        restarted = {"wall_seconds": seconds, "restarts": number - 3}
        write_json(folder / "timing.json", timing | restarted)
        spec = run_plan.model_copy(update={"seed": number}).model_dump(mode="json")
        write_json(folder / "spec.json", spec)
    # Snakemake removes a plan that it makes again.
    write_json(folder.with_name("seed0") / "timing.json", timing)
    assert cost.estimate(demo, run_plan).minutes == pytest.approx((162 + demo.cost.start_s) / 60)
    changed_plan = run_plan.model_copy(
        update={"recipe": run_plan.recipe.model_copy(update={"epochs": 99})}
    )
    assert not cost.estimate(demo, changed_plan).measured


def test_images_are_counted_from_the_index_once_it_exists(demo: Config) -> None:
    assert sum(cost.images(demo, "glaucoma").values()) == 440
    counts = {
        "normal": {"train": 70, "val": 10, "test": 20},
        "glaucoma": {"train": 7, "val": 1, "test": 2},
    }
    write_json(demo.workdir / "data" / "glaucoma" / "audit.json", {"counts": counts})
    assert cost.images(demo, "glaucoma") == {"train": 77, "val": 11, "test": 22}


def test_what_the_model_does_not_know_is_reported(full: Config) -> None:
    note = cost.estimate(full, of(full, "skin/ddp_2gpu_vit_base_patch16_224")).note
    assert "vit_base_patch16_224 is not among cost.networks" in note
    nameless = full.model_copy(update={"cost": full.cost.model_copy(update={"gpu": "b300"})})
    with pytest.raises(MedscaleError, match=r"cost.devices has no 'b300'.*a100"):
        cost.estimate(nameless, of(full, "skin/ddp_2gpu"))


def test_stages_and_disk_grow_with_the_images(full: Config) -> None:
    few, many = cost.preparation(full, "melanoma", 16), cost.preparation(full, "skin", 16)
    assert many["index"] > few["index"]
    assert cost.preparation(full, "skin", 1)["shards"] > 8 * many["shards"]  # all but the start
    disk = cost.storage(full, "skin")
    assert disk["shards"] == pytest.approx(245_000 * 3 * 256**2 / 1e6)
    assert cost.storage(full, "dermatology")["raw"] == 0  # those of skin
    assert disk["raw"] > 0
    assert disk["runs"] > 30 * 4 * 10


def test_it_is_cheap_to_ask() -> None:
    code = "import sys, medscale.resources.cost; sys.exit(bool({'torch', 'timm'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_counts_of_networks_are_what_the_configuration_says(full: Config, demo: Config) -> None:
    from bench.networks import count

    for config, name in (
        (full, "pneumonia/serial_1cpu"),
        (demo, "glaucoma/serial_1cpu"),
    ):  # own: timm takes seconds
        run_plan = of(config, name)
        counts = count(
            run_plan.model,
            compute.pixels(config, run_plan),
            len(config.study(run_plan.study).classes or range(35)),
        )
        row = config.cost.networks[run_plan.model.name]
        for key in ("gflops", "activations_m", "parameters_m"):
            assert getattr(row, key) == pytest.approx(getattr(counts, key), rel=0.1), (name, key)


def test_a_narrower_network_costs_less(full: Config) -> None:
    from bench.networks import count

    run_plan = of(full, "glaucoma/serial_1cpu")
    narrow = run_plan.model.model_copy(update={"options": run_plan.model.options | {"width": 16}})
    scaled = compute.network(full, run_plan.model_copy(update={"model": narrow}))
    counts = count(narrow, compute.pixels(full, run_plan), 2)
    for key in ("gflops", "activations_m", "parameters_m"):
        assert getattr(scaled, key) == pytest.approx(getattr(counts, key), rel=0.2), key
