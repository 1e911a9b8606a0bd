"""`medscale check` on a person's own images: patients, and splits that the index would refuse."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from data_trees import class_tree
from medscale.base.errors import MedscaleError
from medscale.data.demo.generate import generate, parse_options
from medscale.data.kind import scan
from medscale.data.settings import Source
from medscale.engine.models.registry import build
from medscale.engine.plan import Model
from medscale.workflow import preflight, raw_folder
from medscale.workflow.datasets import Datasets
from medscale.workflow.graph import Graph
from medscale.workflow.preflight import examine

RANDOM = {"mode": "random"}


def findings(root: Path, split: dict[str, object], patient: str | None = None) -> dict[str, str]:
    """Return level and text of what the check says on the study ``mine``."""
    return {
        finding.subject: f"{finding.level}: {finding.text}"
        for finding in examine(graph(root, split, patient))
        if finding.subject.endswith("of mine")
    }


def graph(root: Path, split: dict[str, object], patient: str | None = None) -> Graph:
    """Return the configuration of the study ``mine``."""
    study = {
        "like": "glaucoma",
        "source": {"kind": "folder", "path": str(root), "patient": patient},
        "classes": ["a", "b"],
        "split": split,
        "runs": ["serial_1cpu"],
    }
    changes = {"scale": "demo", "workdir": str(root / "work"), "only": ["mine"], "seeds": [1]}
    return Graph(changes | {"studies": {"mine": study}})


def test_the_check_says_whether_patients_are_known(tmp_path: Path) -> None:
    class_tree(tmp_path / "raw", {"a": 12, "b": 12})
    assert findings(tmp_path / "raw", {})["patients of mine"].startswith(
        "note: The patients are not known"
    )
    finding_text = findings(tmp_path / "raw", {}, r"(\d+)\.png")["patients of mine"]
    assert finding_text == r"ok: 24 images are of 12 patients. From: the expression (\d+)\.png"


@pytest.mark.parametrize(
    ("folders", "split", "message"),
    [
        (("train", "val"), {"mode": "published"}, "error: .* has no test split"),
        (("train", "test"), {"mode": "published"}, None),
        (("",), {"mode": "published"}, "error: .* no train, test split"),
    ],
)
def test_the_check_refuses_what_the_index_will_refuse(
    tmp_path: Path, folders: tuple[str, ...], split: dict[str, object], message: str | None
) -> None:
    for number, folder in enumerate(folders):
        class_tree(tmp_path / "raw" / folder, {"a": 5, "b": 5}, seed=100 * number)
    finding_text = findings(tmp_path / "raw", split).get("split of mine")
    assert (finding_text is None) == (message is None)
    assert message is None or re.match(message, str(finding_text))


def test_the_check_refuses_the_division_of_a_variant(tmp_path: Path) -> None:
    class_tree(tmp_path, {"a": 12, "b": 12})
    mine = {"like": "glaucoma", "source": {"kind": "folder", "path": str(tmp_path)}}
    mine |= {"runs": ["serial_1cpu"], "classes": ["a", "b"]}
    studies: dict[str, Any] = {"mine": mine, "larger": {"preprocess": {"size": 512}}}
    studies |= {"published": {"split": {"mode": "published"}}, "at_random": {"split": RANDOM}}
    studies |= {"with_age": {"model": {"metadata": ["age"]}}}
    studies = {n: s if n == "mine" else s | {"variant_of": "mine"} for n, s in studies.items()}
    changes = {"scale": "demo", "workdir": str(tmp_path / "work"), "only": ["mine"], "seeds": [1]}
    report = examine(Graph(changes | {"studies": studies}))
    of_variants = [line for line in report if line.subject.split()[-1] in studies.keys() - {"mine"}]
    assert [(line.level, line.subject) for line in of_variants] == [
        ("error", "split of published"),
        ("error", "metadata of with_age"),
    ]


def test_the_check_names_files_that_are_left_out_and_a_division_that_is_not_kept(
    tmp_path: Path,
) -> None:
    for number, name in enumerate(("train", "test")):
        class_tree(tmp_path / "raw" / name, {"a": 12, "b": 12, "c": 1}, seed=100 * number)
    for name in ("notes.txt", "train/a/phone.heic", "train/a/.DS_Store", "more.zip"):
        (tmp_path / "raw" / name).write_bytes(b"x")
    texts = [finding.text for finding in examine(graph(tmp_path / "raw", {}))]
    assert any("divided anew; keep their division by split: {mode: published}" in t for t in texts)
    assert [text for text in texts if text.startswith("left out")] == [
        "left out, class not in the study: 2, such as test/c/0.png (class c)",
        "left out, image format that is not read: 1, such as train/a/phone.heic (convert it to "
        "PNG, JPEG or DICOM)",
        "left out, not an image by its name: 1 .zip (such as more.zip), 1 .txt (such as notes.txt)",
    ]
    texts = [finding.text for finding in examine(graph(tmp_path / "raw", {"mode": "published"}))]
    assert not any("divided anew" in text for text in texts)


def test_a_class_that_cannot_be_in_every_part_is_refused(tmp_path: Path) -> None:
    class_tree(tmp_path / "raw", {"a": 12, "b": 4})
    assert findings(tmp_path / "raw", {})["split of mine"].startswith(
        "note: class b has only 4 images"
    )
    (tmp_path / "raw/b/3.png").unlink()
    (tmp_path / "raw/b/2.png").unlink()
    text = findings(tmp_path / "raw", {})["split of mine"]
    assert text.startswith("error: class b has 2 images of 2 patients or groups, so that it cannot")
    # Images of two patients cannot be in three parts unless single images are divided.
    class_tree(tmp_path / "pairs", {"a": 12, "b": 12})
    rows = [f"{label}/{n}.png,{label},{label}{n % 2}" for label in "ab" for n in range(12)]
    (tmp_path / "pairs/index.csv").write_text("\n".join(["path,label,patient", *rows]))
    assert findings(tmp_path / "pairs", {})["split of mine"].startswith("error: ")
    note = findings(tmp_path / "pairs", {"mode": "random"})["split of mine"]
    assert note.startswith("note: 4 of the 4 test images are of patients or groups that are in the")


def test_a_small_test_split_is_noted_with_what_it_can_show(tmp_path: Path) -> None:
    class_tree(tmp_path / "raw", {"a": 9, "b": 6})
    table = ["path,label,patient"]
    table += [f"a/{n}.png,a,P{n}" for n in range(9)] + [f"b/{n}.png,b,Q{n}" for n in range(6)]
    (tmp_path / "raw" / "index.csv").write_text("\n".join(table))
    text = findings(tmp_path / "raw", {})["test split of mine"]
    assert text == (
        "note: there are only about 3 patients to test on (1 of class b): even if all answers are "
        "right, the 95 % interval of the accuracy reaches down to 29 %; add images, or test each "
        "image once by cross-validation (split.folds)"
    )
    shares = {"train": None, "val": None, "test": None}
    text = findings(tmp_path / "raw", {"folds": 3} | shares)["test split of mine"]
    assert "about 15 patients to test on (6 of class b)" in text
    assert text.endswith("reaches down to 78 %; add images")
    class_tree(tmp_path / "large", {"a": 90, "b": 90})  # 36 test images: down to 90.3 %
    assert "test split of mine" not in findings(tmp_path / "large", {})


def test_shards_of_a_variant_need_space_where_its_preprocessing_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = {"like": "glaucoma", "source": {"kind": "folder", "path": str(tmp_path)}}
    mine |= {"runs": ["serial_1cpu"], "classes": ["a", "b"]}
    changes = {"scale": "demo", "workdir": str(tmp_path / "work"), "only": ["mine"], "seeds": [1]}

    def disk(free: float, **preprocess: object) -> tuple[str, float]:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
        variant = mine | {"variant_of": "mine", "title": "large images", "preprocess": preprocess}
        del variant["like"]
        studies = {"studies": {"mine": mine, "large": variant}}
        finding = preflight._disk(Graph(changes | studies), {"mine": 24})
        return finding.level, float(re.findall(r"([\d.]+) MB needed", finding.text)[0])

    level, equal = disk(1e9)
    _, other = disk(1e9, size=512)
    assert level == "ok"
    assert other - equal == pytest.approx(24 * 3 * 512**2 / 1e6, abs=0.11)
    assert disk(1e6 * (other - 1), size=512) == ("error", other)
    assert disk(1e6 * (other + 1), size=512) == ("ok", other)


def test_patients_of_an_external_set_are_compared_with_those_of_the_study(tmp_path: Path) -> None:
    class_tree(tmp_path / "raw", {"a": 12, "b": 12})
    for name in ("clinic", "other", "unnamed"):
        class_tree(tmp_path / name, {"a": 4, "b": 4})
    header, order = "path,label,patient\n", [("a", 12), ("b", 12)]
    rows = [f"{label}/{n}.png,{label},P{n}\n" for label, count in order for n in range(count)]
    (tmp_path / "raw" / "index.csv").write_text(header + "".join(rows))
    rows = [f"{label}/{n}.png,{label},P{n + 10}\n" for label in "ab" for n in range(4)]
    (tmp_path / "clinic" / "index.csv").write_text(header + "".join(rows))
    rows = [f"{label}/{n}.png,{label},R{n}\n" for label in "ab" for n in range(4)]
    (tmp_path / "other" / "index.csv").write_text(header + "".join(rows))
    study = graph(tmp_path / "raw", {}).config.study("mine").model_dump(mode="json")
    study["external"] = [
        {"title": name, "source": {"kind": "folder", "path": str(tmp_path / name)}}
        for name in ("clinic", "other", "unnamed")
    ]
    changes = {"workdir": str(tmp_path / "work"), "only": ["mine"], "studies": {"mine": study}}
    texts = [
        f"{f.level}: {f.text}"
        for f in examine(Graph(changes))
        if f.subject.startswith("patients of mine_external")
    ]
    assert texts == [
        "note: 4 of its 8 images are of 2 patients whose names mine has too: if these are the same "
        "people, the set is not independent of the study, so leave these images out",
        "ok: 4, none with a name that mine has too",
        "note: whether the set shares patients with mine is not known: neither a table nor an "
        "expression names the patients of mine_external3",
    ]


def test_an_edited_table_makes_the_index_again(tmp_path: Path) -> None:
    class_tree(tmp_path / "raw", {"a": 3, "b": 3})
    datasets, study = Datasets(graph(tmp_path / "raw", {})), SimpleNamespace(study="mine")
    table = tmp_path / "raw" / "index.csv"
    table.write_text("path,label,patient\na/0.png,a,P1\n")
    before = datasets.raw_state(study)
    (tmp_path / "raw" / ".DS_Store").touch()
    (tmp_path / "raw" / "a" / "Thumbs.db").touch()
    os.utime(table)
    assert datasets.raw_state(study) == before
    with table.open("r+") as file:  # in place: the folder's time stays
        file.write("path,label,patient\na/0.png,a,P2\n")
    assert datasets.raw_state(study) != before


def test_an_image_deep_below_or_edited_in_place_makes_the_index_again(tmp_path: Path) -> None:
    image = tmp_path / "raw" / "a" / "PAT1" / "ST1" / "SE1" / "IM1"
    image.parent.mkdir(parents=True)
    image.write_bytes(b"1")
    datasets, study = Datasets(graph(tmp_path / "raw", {})), SimpleNamespace(study="mine")
    states = [datasets.raw_state(study)]
    image.write_bytes(b"12")
    states.append(datasets.raw_state(study))
    image.with_name("IM2").write_bytes(b"1")
    states.append(datasets.raw_state(study))
    image.unlink()
    (image.parent / "loop").symlink_to(tmp_path / "raw")
    (image.parent / "self").symlink_to("self")
    states.append(datasets.raw_state(study))
    assert len(set(states)) == 4
    assert datasets.raw_state(study) == states[-1]


def test_a_moved_raw_folder_makes_no_index_again(tmp_path: Path) -> None:
    class_tree(tmp_path / "raw", {"a": 3, "b": 3})
    shutil.copytree(tmp_path / "raw", tmp_path / "elsewhere")  # with the files' dates
    study, before, after = (
        SimpleNamespace(study="mine"),
        *(Datasets(graph(tmp_path / name, {})) for name in ("raw", "elsewhere")),
    )
    assert before.raw(study) != after.raw(study)
    assert before.source(study) == after.source(study)
    assert before.raw_state(study) == after.raw_state(study)


def test_the_check_names_a_missing_file_of_weights(tmp_path: Path) -> None:
    class_tree(tmp_path / "raw", {"a": 12, "b": 12})
    study = graph(tmp_path / "raw", {}).config.study("mine").model_dump(mode="json")
    study["model"]["pretrained"] = str(tmp_path / "weights.safetensors")
    changes = {"workdir": str(tmp_path / "work"), "only": ["mine"], "studies": {"mine": study}}
    (missing,) = [f for f in examine(Graph(changes)) if f.subject == "weights"]
    assert (missing.level, missing.text[-57:]) == (
        "error",
        "weights.safetensors does not exist; name another file by `pretrained`"[-57:],
    )


def test_new_times_of_equal_files_make_no_index_again(tmp_path: Path) -> None:
    class_tree(tmp_path / "raw", {"a": 3, "b": 3})
    (tmp_path / "raw" / "index.csv").write_text("path,label\na/0.png,a\n")
    datasets, study = Datasets(graph(tmp_path / "raw", {})), SimpleNamespace(study="mine")
    job = SimpleNamespace(rule=SimpleNamespace(name="index"), wildcards=study)
    workflow = SimpleNamespace(dag=SimpleNamespace(jobs=[job], needrun=lambda job: True))
    before, image = datasets.raw_state(study), tmp_path / "raw" / "a" / "1.png"
    datasets.record_raw(workflow)
    for file in (tmp_path / "raw").rglob("*"):
        os.utime(file, (1, 1))
    assert datasets.raw_state(study) == before
    datasets.record_raw(workflow)  # the index is made again for another reason, such as its code
    assert datasets.raw_state(study) == before
    content = image.read_bytes()
    image.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # of the same size
    assert datasets.raw_state(study) != before
    image.write_bytes(content)
    assert datasets.raw_state(study) == before
    image.rename(image.with_name("9.png"))
    assert datasets.raw_state(study) != before
    image.with_name("9.png").rename(image)
    next((tmp_path / "raw" / "work").glob(".snakemake/raw/*")).write_text("{}")
    os.utime(image, (2, 2))
    assert datasets.raw_state(study) != before


def test_exchanged_images_of_equal_size_and_time_make_the_index_again(tmp_path: Path) -> None:
    """As uncompressed images that an archive unpacked, two of which were in the wrong class."""
    images = [tmp_path / "raw" / label / "1.bmp" for label in "ab"]
    for number, image in enumerate(images):
        image.parent.mkdir(parents=True)
        image.write_bytes(bytes([number]) * 9)
        os.utime(image, (1, 1))
    record, states = tmp_path / "record.json", []
    raw_folder.keep_record(tmp_path / "raw", [], record)
    for _ in range(3):
        states.append(raw_folder.state(tmp_path / "raw", [], record))
        images[0].rename(tmp_path / "other")
        images[1].rename(images[0])
        (tmp_path / "other").rename(images[1])
    assert states[0] == states[2] != states[1]
    assert states[1] != raw_folder.state(tmp_path / "raw", [], tmp_path / "none")
    raw_folder.keep_record(tmp_path / "raw", [], record)  # the index is made again
    assert raw_folder.state(tmp_path / "raw", [], record) == states[1]
    images[0].chmod(0o600)
    assert raw_folder.state(tmp_path / "raw", [], record) == states[1]


def test_a_large_raw_folder_has_no_record(tmp_path: Path, monkeypatch) -> None:
    class_tree(tmp_path / "raw", {"a": 3, "b": 3})
    record = tmp_path / "record.json"
    monkeypatch.setattr(raw_folder, "MOST_BYTES", 100)
    raw_folder.keep_record(tmp_path / "raw", [], record)
    monkeypatch.setattr(raw_folder, "MOST_BYTES", 10**9)
    monkeypatch.setattr(raw_folder, "LISTED", 5)
    raw_folder.keep_record(tmp_path / "raw", [], record)
    assert not record.exists()
    before = raw_folder.state(tmp_path / "raw", [], record)
    (tmp_path / "raw" / "a" / "9.png").write_bytes(b"")
    assert raw_folder.state(tmp_path / "raw", [], record) != before


def test_files_of_a_raw_folder_that_has_grown_large_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call of Snakemake would read them until the index is made again."""
    class_tree(tmp_path / "raw", {"a": 3})
    record, read = tmp_path / "record.json", list[str]()
    raw_folder.keep_record(tmp_path / "raw", [], record)
    before = raw_folder.state(tmp_path / "raw", [], record)
    monkeypatch.setattr(raw_folder, "_sha256", lambda file, _time: read.append(file.name) or "")
    (tmp_path / "raw/a/3.png").write_bytes(b"x" * 10_000)
    monkeypatch.setattr(raw_folder, "MOST_BYTES", 10_000)
    assert raw_folder.state(tmp_path / "raw", [], record) != before
    assert read == []


def test_a_class_without_test_images_is_noted(tmp_path: Path) -> None:
    class_tree(tmp_path / "raw" / "train", {"a": 12, "b": 12})
    class_tree(tmp_path / "raw" / "test", {"a": 3})
    text = findings(tmp_path / "raw", {"mode": "published"})["split of mine"]
    assert text == "note: No test image is of class b, so that nothing can be estimated for it."


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("published", "note: 4 of the 6 test images are of patients or groups that are in the tr"),
        ("random", "note: 3 of the 8 test images are of patients or groups that are in the train"),
        ("grouped", "note: the images come divided into train, val or test, and are divided anew"),
    ],
)
def test_patients_in_training_and_test_are_noted(tmp_path: Path, mode: str, message: str) -> None:
    """The folders have patients 11 and 12 in training and test, with 2 images each in the test."""
    for name, numbers in {
        "train": range(1, 13),
        "val": range(20, 23),
        "test": range(11, 14),
    }.items():
        for label in ("a", "b"):
            for number in numbers:
                file = tmp_path / "raw" / name / label / f"p{number}_{name}_{label}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.touch()
    assert findings(tmp_path / "raw", {"mode": mode}, r"p(\d+)_")["split of mine"].startswith(
        message
    )


def test_names_that_no_image_has_are_refused(tmp_path: Path) -> None:
    class_tree(tmp_path / "raw", {"a": 12, "b": 12})
    study = graph(tmp_path / "raw", {}).config.study("mine").model_dump(mode="json")
    study |= {"classes": None, "class_titles": {"A": "first"}}
    study["model"]["metadata"] = ["age"]
    study["evaluate"]["prevalence"] = {"b": 0.1, "c": 0.2}
    changes = {"workdir": str(tmp_path / "work"), "only": ["mine"], "studies": {"mine": study}}
    texts = {f.subject: [] for f in examine(Graph(changes))}
    for finding in examine(Graph(changes)):
        texts[finding.subject].append(finding.text)
    assert texts["metadata of mine"] == ["model.metadata names 'age'; the images have: none"]
    assert texts["classes of mine"] == [
        "evaluate.prevalence names 'c', which is no class; there are: a, b",
        "class_titles names 'A', which is no class; did you mean 'a'? there are: a, b",
    ]


WELL = "evaluate.prevalence names 'a'; state the prevalence of: b"


def of_mine(root: Path, changes: dict[str, Any]) -> Graph:
    """Return the configuration of a study of 52 images in two classes with some changes."""
    class_tree(root / "raw", {"a": 40, "b": 12})
    study = graph(root / "raw", {}).config.study("mine").model_dump(mode="json")
    evaluate = study["evaluate"] | changes.pop("evaluate", {})
    study |= {"classes": None, "evaluate": evaluate, **changes}
    return Graph({"workdir": str(root / "work"), "only": ["mine"], "studies": {"mine": study}})


@pytest.mark.parametrize(
    ("changes", "subject", "text"),
    [
        # Of two classes the last is the one to detect; the evaluation would refuse the other.
        ({"evaluate": {"prevalence": {"a": 0.9}}}, "error: classes", WELL),
        (
            {"class_titles": {"a": "b"}},
            "error: classes",
            "class_titles: two classes are called",
        ),
        (
            {"evaluate": {"subgroups": ["age", "hospital"]}},
            "note: subgroups",
            "evaluate.subgroups names 'hospital', which is left out; the images have: none",
        ),
        (
            {"split": {"mode": "source", "column": "sauce", "held_out": "x"}},
            "error: split",
            "split.column is 'sauce'; did you mean 'source'? the images have: source",
        ),
    ],
)
def test_names_that_the_evaluation_would_not_find_are_told_before(
    tmp_path: Path, changes: dict[str, Any], subject: str, text: str
) -> None:
    told = [
        f.text
        for f in examine(of_mine(tmp_path, changes))
        if f"{f.level}: {f.subject}" == f"{subject} of mine"
    ]
    assert len(told) == 1
    assert told[0].startswith(text)


@pytest.mark.parametrize(
    ("study", "settings", "text"),
    [
        ("glaucoma", {"evaluate": {"prevalence": {"normal": 0.9}}},
         "evaluate.prevalence names 'normal'; state the prevalence of: glaucoma"),
        ("skin", {"evaluate": {"prevalence": {"Acne": 0.1}}},
         "evaluate.prevalence names 'Acne', which is no class;"),
        ("melanoma", {"evaluate": {"prevalence": {"nevus": 0.5, "seborrheic_keratosis": 0.1,
                                                  "melanoma": 0.1}}},
         "evaluate.prevalence has all classes, but sums to 0.7: the sum must be 1"),
        ("pneumonia", {"classes": ["Normal", "Lung Opacities"]}, "classes names 'Normal'"),
        ("pneumonia", {"class_titles": {"healthy": "x"}}, "class_titles names 'healthy'"),
    ],
)  # fmt: skip
def test_classes_of_synthetic_images_are_known_before_they_are_generated(
    tmp_path: Path, study: str, settings: dict[str, Any], text: str
) -> None:
    changes = {"scale": "demo", "workdir": str(tmp_path), "only": [study], "seeds": [1]}
    try:
        found = examine(Graph(changes | {"studies": {study: settings}}))
    except MedscaleError as error:  # the study states its classes
        told = [str(error)]
    else:
        told = [f.text for f in found if (f.level, f.subject) == ("error", f"classes of {study}")]
    assert told
    assert text in told[0]


def test_synthetic_external_images_may_lack_classes_of_the_study(tmp_path: Path) -> None:
    source = {"kind": "skin", "synthetic": True, "options": {"classes": 3}}
    changes = {"scale": "demo", "workdir": str(tmp_path), "only": ["skin"], "seeds": [1]}
    outside = {"external": [{"title": "elsewhere", "source": source}]}
    answers = examine(Graph(changes | {"studies": {"skin": outside}}))
    assert [f.text for f in answers if f.level == "error" and "classes" in f.subject] == []


def test_labels_of_synthetic_images_are_those_that_the_kind_lists(tmp_path: Path) -> None:
    for kind, options in (
        ("smdg", {"unique": 30, "size": 32}), ("isic2017", {"unique": 110, "size": 48, "large": 0}),
        ("rsna", {"exams": 40, "size": 64, "classes": "detailed"}),
        ("skin", {"classes": 4, "each": 12, "size": 48}),
    ):  # fmt: skip
        generate(kind, options, tmp_path / kind)
        chosen = {"classes": "detailed"} if kind == "rsna" else {}
        source = Source(kind=kind, path=tmp_path / kind, options=chosen)
        assert scan(source, None).classes == parse_options(kind, options).labels


def test_names_that_the_paper_prints_as_codes_are_noted(tmp_path: Path) -> None:
    class_tree(tmp_path / "raw", {"正常": 12, "肺炎": 12})
    study = graph(tmp_path / "raw", {}).config.study("mine").model_dump(mode="json")
    study |= {"title": "Pneumonia", "classes": None, "class_titles": {"肺炎": "pneumonia"}}
    changes = {"workdir": str(tmp_path / "work"), "only": ["mine"], "studies": {"mine": study}}
    [text] = [f.text for f in examine(Graph(changes)) if f.subject == "classes of mine"]
    assert text.startswith("the paper prints letters of '正常' as codes")


def test_the_classes_of_external_images_are_matched_as_the_index_matches_them(
    tmp_path: Path,
) -> None:
    class_tree(tmp_path / "raw", {"a": 12, "b": 12})
    class_tree(tmp_path / "clinic", {"A": 3, "c": 3})
    class_tree(tmp_path / "other", {"x": 3, "y": 3})
    study = graph(tmp_path / "raw", {}).config.study("mine").model_dump(mode="json")
    study["external"] = [
        {"title": name, "source": {"kind": "folder", "path": str(tmp_path / name)}}
        for name in ("clinic", "other")
    ]
    changes = {"workdir": str(tmp_path / "work"), "only": ["mine"], "studies": {"mine": study}}
    texts = [
        f"{f.level}: {f.text}"
        for f in examine(Graph(changes))
        if f.subject.startswith("data of mine_external")
    ]
    assert texts[1:4] == [
        "note: Class A is read as a.",
        "note: Classes that the study does not have are left out: c 3; if one of them is b, match "
        "the names by source.labels (or --label THEIRS=OURS).",
        "note: No image is of class b, so that nothing can be estimated for it.",
    ]
    assert "its classes are x, y, the study's are a, b; match them by source.labels" in texts[4]
    assert (len(texts), texts[4][:6]) == (5, "error:")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"no weights", "is no valid .safetensors file"),
        (save({"stem.weight": np.zeros((2, 3), np.float32)}), "does not fit the model (missing: "),
        (None, ""),
    ],
)
def test_weights_that_do_not_fit_are_told_before_a_training(
    tmp_path: Path, content: bytes | None, words: str
) -> None:
    file = tmp_path / "w.safetensors"
    weights = build(Model(name="tiny_cnn"), 5).state_dict()  # of another number of classes
    own = save({key: value.numpy() for key, value in weights.items()})
    file.write_bytes(own if content is None else content)
    changes = {"model": {"name": "tiny_cnn", "pretrained": str(file)}}
    told = [f.text for f in examine(of_mine(tmp_path, changes)) if f.subject == "weights"]
    assert len(told) == bool(words)
    assert all(words in text for text in told)
