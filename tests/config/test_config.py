"""The configuration: overlays, changes, inheritance, and one message that names each mistake."""

from pathlib import Path

import pytest

from medscale.base.errors import MedscaleError
from medscale.config import configuration as config
from medscale.config import planning
from medscale.engine.plan import RunPlan
from medscale.engine.run import RunSpec

ROOT = Path(__file__).parents[2]
BASE = ROOT / "config.yaml"


def test_full_scale_is_the_default_and_lists_the_glaucoma_runs_of_the_study():
    full = config.load(BASE)
    assert full.scale == "full"
    assert not full.stand_in_gpu
    runs = full.study("glaucoma").runs
    assert {f"ddp_{n}cpu" for n in (2, 4, 8, 16, 24, 32)} <= set(runs)
    assert {
        "serial_1cpu",
        "serial_1gpu_bs16",
        "serial_1gpu_bs64",
        "ddp_amp_mp_2gpu",
        "ddp_amp_mp_4gpu",
    } <= set(runs)
    recipe = full.study("glaucoma").recipe
    assert (recipe.epochs, recipe.batch_size, recipe.clip_norm, recipe.optimizer) == (
        20,
        32,
        1.0,
        "adam",
    )


def test_each_run_of_the_demo_trains_from_scratch():
    demo = config.load(BASE, {"scale": "demo"})
    full = config.load(BASE)
    names = {run for name in full.studies for run in full.study(name).runs}
    for study in set(demo.studies) - set(demo.externals("glaucoma")):
        detects = demo.study(study).detect is not None
        for run in (run for run in names if detects or "yolo" not in run):
            assert planning.plan(demo, study, run, 1).model.pretrained is None, (study, run)


def test_scales_never_share_a_folder_and_changes_win_over_the_overlay():
    full, demo = config.load(BASE), config.load(BASE, {"scale": "demo"})
    assert full.workdir != demo.workdir
    config_with_changes = config.load(
        BASE, {"scale": "demo", "studies": {"glaucoma": {"recipe": {"epochs": 3}}}}
    )
    assert config_with_changes.study("glaucoma").recipe.epochs == 3
    assert (
        config_with_changes.study("glaucoma").recipe.batch_is
        == demo.study("glaucoma").recipe.batch_is
    )


def test_a_study_like_another_takes_its_runs_and_not_its_preprocessing():
    configuration = config.load(
        BASE,
        {"studies": {"mine": {"like": "glaucoma", "title": "Mine", "source": {"kind": "folder"}}}},
    )
    new_study, original = configuration.study("mine"), configuration.study("glaucoma")
    assert (new_study.runs, new_study.baseline) == (original.runs, original.baseline)
    assert (new_study.preprocess.gamma, new_study.preprocess.median) == (None, None)
    assert (new_study.recipe.class_weights, new_study.recipe.epochs) == ("auto", 20)
    assert new_study.recipe.steps is not None
    changes = {"studies": {"mine": {"source": {"kind": "folder"}, "recipe": {"epochs": 3}}}}
    short = config.load(BASE, changes).study("mine").recipe
    assert (short.epochs, short.steps, short.ema) == (3, None, new_study.recipe.ema)
    assert new_study.source.kind == "folder"
    contradictory = {"like": "glaucoma", "variant_of": "glaucoma"}
    with pytest.raises(MedscaleError, match="like and variant_of"):
        config.load(BASE, {"studies": {"b": contradictory}})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": [1, 1]}, "duplicates"),
        ({"studies": {"glaucoma": {"preprocess": {"median": 4}}}}, "median must be odd"),
        ({"studies": {"glaucoma": None}}, "studies.glaucoma"),
        (
            {"studies": {"glaucoma": {"title": "Eyes"}, "skin": {"title": "Eyes"}}},
            r"studies.skin.title: 'Eyes' is the title of glaucoma, too: give it another",
        ),
        ({"studies": {"skin": {"evaluate": {"specificities": [0.9, 1]}}}}, "lie between 0 and 1"),
        ({"studies": {"skin": {"evaluate": {"specificities": [0, 0.9]}}}}, "lie between 0 and 1"),
        ({"studies": {"skin": {"evaluate": {"age_bands": [60, 40]}}}}, "age_bands must ascend"),
        ({"studies": {"pneumonia": {"model": {"name": "yolov8n"}}}}, "a detector is the model of"),
        ({"studies": {"pneumonia": {"baseline": "serial_1gpu_yolov8n"}}}, "a detector is the"),
        (
            {
                "studies": {
                    "pneumonia": {"benchmarks": {"export": {"runs": ["serial_1gpu_yolov8n"]}}}
                }
            },
            "benchmarks.export.runs: serial_1gpu_yolov8n is a detector",
        ),
        ({"studies": {"skin": {"classes": ["a", "\ud800"]}}}, "skin.classes: .* has a surrogate"),
    ],
)
def test_mistakes_are_named(changes, message):
    with pytest.raises(MedscaleError, match=message):
        config.load(BASE, changes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("studies: [a: b", "line 1.*not valid YAML"),
        ("- a", "expected a mapping"),
        ("scales: [demo]", r"scales must be a mapping of settings, not \['demo'\]"),
        ("scale: demo\nscales:\n  demo: [a]", "scales.demo must be a mapping"),
        ("scale: demo\nscales:", "there is no scale 'demo'"),
        ("scale: full", "studies"),
    ],
)
def test_a_broken_file_is_one_message(tmp_path, text, message):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(MedscaleError, match="(?s)" + message):
        config.load(tmp_path / "config.yaml")


def test_a_folder_needs_no_more_than_its_path_and_classes():
    source = {"kind": "folder", "path": "images"}
    folder_study = {"source": source, "classes": ["a", "b"]}
    study = config.load(BASE, {"studies": {"mine": folder_study}}).study("mine")
    assert study.runs == ["serial_1cpu"]
    assert study.model.options["dropout"] == "auto"
    replaced = config.load(
        BASE, {"studies": {"mine": folder_study | {"model": {"name": "xray_cnn"}}}}
    )
    assert replaced.study("mine").model.options == {}
    same_model = config.load(
        BASE, {"studies": {"mine": folder_study | {"model": {"options": {"width": 8}}}}}
    )
    assert same_model.study("mine").model.options == {"width": 8, "dropout": "auto"}


def test_a_plan_without_steps_is_written_as_before():
    published = planning.plan(config.load(BASE), "glaucoma", "serial_1cpu", 1)
    assert "steps" not in published.model_dump(mode="json")["recipe"]


def test_plan_completes_a_run():
    full, demo = config.load(BASE), config.load(BASE, {"scale": "demo"})
    plan = planning.plan(full, "glaucoma", "ddp_amp_8gpu_bs16", 1)
    assert (plan.nodes, plan.procs_per_node, plan.backend, plan.stand_in) == (2, 4, "cuda", False)
    assert plan.global_batch == 128
    assert plan.learning_rate == pytest.approx(plan.recipe.lr * 8)
    stand_in = planning.plan(demo, "glaucoma", "ddp_amp_8gpu", 1)
    assert (stand_in.nodes, stand_in.backend, stand_in.stand_in, stand_in.synthetic) == (
        1,
        "cpu",
        True,
        True,
    )
    assert stand_in.global_batch == demo.study("glaucoma").recipe.batch_size
    with pytest.raises(MedscaleError, match="do not divide over"):
        planning.plan(full, "glaucoma", "ddp_5gpu", 1)


def test_a_node_without_gpus_has_no_runs_on_gpus():
    full = config.load(BASE, {"node": {"gpus": 0}})
    with pytest.raises(MedscaleError, match=r"ddp_2gpu runs on GPUs, and node\.gpus is 0"):
        planning.plan(full, "glaucoma", "ddp_2gpu", 1)
    assert planning.plan(full, "glaucoma", "ddp_2cpu", 1).nodes == 1
    cluster = {"scale": "demo", "cluster": {}, "node": {"gpus": 0, "cpus": 2}}
    stand_in = planning.plan(config.load(BASE, cluster), "glaucoma", "ddp_4gpu", 1)
    assert (stand_in.nodes, stand_in.procs_per_node) == (2, 2)


def test_another_model_drops_the_options_of_the_studys_own():
    demo = config.load(BASE, {"scale": "demo"})
    assert planning.plan(demo, "glaucoma", "ddp_2gpu_densenet121", 1).model.options == {}
    assert planning.plan(demo, "glaucoma", "ddp_2gpu_medical_cnn", 1).model.options == {"width": 16}


def test_a_plan_survives_its_file():
    plan = planning.plan(config.load(BASE), "glaucoma", RunSpec.parse("ddp_2cpu"), 1)
    restored_plan = RunPlan.model_validate_json(plan.model_dump_json())
    assert restored_plan == plan
    assert restored_plan.digest == plan.digest
    assert plan.digest != planning.plan(config.load(BASE), "glaucoma", "ddp_2cpu", 2).digest


def test_a_variant_takes_all_but_its_title_and_shares_the_raw_images():
    expanded = config.load(
        BASE, {"studies": {"other": {"variant_of": "skin", "split": {"mode": "random"}}}}
    )
    variant, skin = expanded.study("other"), expanded.study("skin")
    assert (variant.title, variant.recipe, variant.source) == ("other", skin.recipe, skin.source)
    assert expanded.owner("other") == expanded.owner("dermatology") == "skin"
    assert "other" in expanded.variants("skin")
    assert "other" not in expanded.active


def test_another_network_does_not_take_the_options_of_the_one_it_replaces():
    mine = {"source": {"kind": "folder", "path": "images"}, "model": {"options": {"width": 8}}}
    other = {"variant_of": "mine", "model": {"name": "resnet18", "options": {"drop_rate": 0.1}}}
    studies = {
        "mine": mine,
        "same": {"variant_of": "mine", "model": {"trained": "last_layer"}},
        "other": other,
        "glaucoma": {"model": {"name": "resnet50"}},  # over width 16 of the demo
    }
    loaded = config.load(BASE, {"scale": "demo", "studies": studies})
    assert loaded.study("same").model.options == {"width": 8, "dropout": "auto"}
    assert loaded.study("other").model.options == {"drop_rate": 0.1}
    assert loaded.study("glaucoma").model.options == {}


def test_a_number_of_epochs_replaces_a_number_of_steps_below_it():
    studies = {
        "mine": {"source": {"kind": "folder", "path": "images"}},
        "short": {"variant_of": "mine", "recipe": {"epochs": 3}},
        "both": {"variant_of": "mine", "recipe": {"epochs": 3, "steps": 5}},
    }
    recipes = {name: config.load(BASE, {"studies": studies}).study(name).recipe for name in studies}
    assert [recipes[name].steps for name in studies] == [1200, None, 5]
    assert recipes["short"].epochs == 3


def test_a_study_set_to_nothing_is_gone_and_one_can_have_its_own_seeds():
    expanded = config.load(BASE, {"studies": {"melanoma_all": None, "skin": {"seeds": [7]}}})
    assert "melanoma_all" not in expanded.studies
    assert expanded.seeds_of("skin") == [7]
    assert expanded.seeds_of("glaucoma") == expanded.seeds


@pytest.mark.parametrize(
    ("study", "message"),
    [
        ({"variant_of": "skin_random"}, "which are another study's"),
        (
            {"like": "skin", "source": {"kind": "skin", "of": "dermatology"}},
            "which are another study's",
        ),
    ],
)
def test_whose_images_a_study_uses_is_checked(study, message):
    with pytest.raises(MedscaleError, match=message):
        config.load(BASE, {"studies": {"other": study}})


def test_held_out_sources_and_external_sets_become_entries():
    sets = [{"title": "Clinic B", "source": {"kind": "folder", "path": "b"}}]
    variant = {
        "variant_of": "glaucoma",
        "split": {"held_out": ["A set", "B"]},
        "runs": ["ddp_2cpu"],
    }
    changes = {"glaucoma": {"external": sets, "runs": ["serial_1cpu"]}, "sites": variant}
    expanded = config.load(BASE, {"studies": changes})
    assert "sites" not in expanded.studies
    assert expanded.variants("glaucoma") == ["glaucoma_published", "sites_a_set", "sites_b"]
    split = expanded.study("sites_a_set").split
    assert (split.mode, split.column, split.held_out) == ("source", "source", "A set")
    assert expanded.externals("glaucoma") == ["glaucoma_external1"]
    external = expanded.study("glaucoma_external1")
    assert external.split.mode == "external"
    assert external.runs == [expanded.study("glaucoma").baseline]
    assert "glaucoma_external1" not in expanded.active
    assert not expanded.externals("sites_b")
    with pytest.raises(MedscaleError, match="on which nothing is trained"):
        planning.plan(expanded, "glaucoma_external1", "serial_1cpu", 1)


def test_an_external_set_of_an_unknown_kind_is_refused():
    study = {"external": [{"title": "B", "source": {"kind": "no"}}]}
    with pytest.raises(MedscaleError, match="no dataset kind 'no'"):
        config.load(BASE, {"studies": {"glaucoma": study}})


def test_a_study_like_another_does_not_take_the_prevalence_of_its_classes():
    new_study = {"like": "glaucoma", "source": {"kind": "folder", "path": "x"}}
    expanded = config.load(BASE, {"studies": {"mine": new_study}})
    assert expanded.study("glaucoma").evaluate.prevalence
    assert not expanded.study("mine").evaluate.prevalence
    assert expanded.study("glaucoma_published").evaluate.prevalence


def test_a_crop_larger_than_the_images_is_refused():
    study = {"preprocess": {"size": 16}, "augment": {"crop": {"size": 48}}}
    with pytest.raises(MedscaleError, match=r"augment.crop.size is 48, but images have 16 pixels"):
        config.load(BASE, {"studies": {"glaucoma": study}})


@pytest.mark.parametrize("size", [32, 96, 224])
def test_the_crop_of_own_images_has_their_size(size):
    """A smaller one would test the middle of each image alone."""
    study = {"source": {"kind": "folder", "path": "x"}, "preprocess": {"size": size}}
    own = config.load(BASE, {"studies": {"mine": study}}).study("mine")
    assert own.augment.crop.size == own.preprocess.size == size
    variant = {"variant_of": "mine", "preprocess": {"size": 2 * size}}
    both = config.load(BASE, {"studies": {"mine": study, "large": variant}})
    assert both.study("large").augment.crop.size == 2 * size


FOLDS = {"folds": 3, "train": None, "test": None}


def test_folds_are_replicates_of_a_run():
    study = {"split": FOLDS, "seeds": [1, 2]}
    folds = config.load(BASE, {"studies": {"glaucoma": study}})
    replicates = folds.replicates_of("glaucoma")
    assert replicates == [(seed, fold) for seed in (1, 2) for fold in (1, 2, 3)]
    plans = [planning.plan(folds, "glaucoma", "serial_1cpu", *pair) for pair in replicates]
    assert [plan.replicate for plan in plans][:4] == [
        *(f"seed1_fold{fold}" for fold in (1, 2, 3)),
        "seed2_fold1",
    ]
    assert len({plan.training_digest for plan in plans}) == 6
    assert RunPlan.model_validate_json(plans[1].model_dump_json()) == plans[1]
    with pytest.raises(MedscaleError, match="glaucoma has no fold 4"):
        planning.plan(folds, "glaucoma", "serial_1cpu", 1, 4)
    # A variant with the published split has no folds, and its plans stay as they are.
    assert folds.replicates_of("glaucoma_published") == [
        (seed, None) for seed in folds.seeds_of("glaucoma_published")
    ]
    plain = planning.plan(config.load(BASE), "glaucoma", "serial_1cpu", 1)
    assert "fold" not in plain.model_dump()
    with pytest.raises(MedscaleError, match="glaucoma has no fold 1"):
        planning.plan(config.load(BASE), "glaucoma", "serial_1cpu", 1, 1)


@pytest.mark.parametrize(
    ("study", "changes", "message"),
    [
        ("pneumonia", {}, "split.folds is for classification: remove the run"),
        ("glaucoma", {"model": {"metadata": ["age"]}}, "remove model.metadata of"),
        ("glaucoma", {"split": {**FOLDS, "mode": "published"}}, "folds need mode grouped"),
    ],
)
def test_folds_are_refused_with_what_they_lack(study, changes, message):
    with pytest.raises(MedscaleError, match=message):
        config.load(BASE, {"studies": {study: {"split": FOLDS, **changes}}})
    folds = config.load(BASE, {"studies": {"glaucoma": {"split": FOLDS, "detect": {}}}})
    with pytest.raises(MedscaleError, match="a detection, but glaucoma is a cross-validation"):
        planning.plan(folds, "glaucoma", "serial_1gpu_yolov8n", 1)
