"""Patients in the names of files and folders: expressions, and hints at patients."""

from __future__ import annotations

from pathlib import Path
from unicodedata import normalize

import pytest

from data_trees import APART, class_tree, index_and_summary, listed, write
from medscale.base.errors import MedscaleError
from medscale.data import patients
from medscale.data.kind import scan
from medscale.data.settings import Source

CHEST = [
    f"{split}/{label}/{name}.png"
    for split in ("train", "test")
    for label, name in [
        *(("PNEUMONIA", f"person{n}_{kind}_{n + 7}") for n in (1, 2, 3) for kind in ("v", "b")),
        *(("NORMAL", f"scan{n}") for n in range(4)),
    ]
]


def test_names_that_share_a_prefix_are_noticed(tmp_path: Path) -> None:
    for number, path in enumerate(CHEST):
        write(tmp_path / path, number + 1)
    assert listed(tmp_path).patient_notes == [
        "12 names repeat 3 prefixes such as person3_: are these patients? Then set source.patient: "
        r"'^person(\d+)_'"
    ]
    inventory = listed(tmp_path, patient=r"person(\d+)_")
    assert inventory.rows["group"].nunique() == 3
    index, summary = index_and_summary(tmp_path, inventory, APART)
    assert index.groupby("patient")["split"].nunique().max() == 1
    assert (summary["patients"]["state"], summary["patients"]["patients"]) == ("partly", 3)


@pytest.mark.parametrize(
    ("path", "folders", "example", "further"),
    [
        ("{label}/p{n}/{k}.png", 6, "p0", ""),
        ("{label}/p{n}/study1/{k}.png", 6, "p0", ""),  # as CheXpert
        ("{label}/p{n}/s{n}{k}/1.png", 12, "s00", "the 6 folders above, such as p0"),  # as MIMIC
    ],
)
def test_folders_of_patients_are_noticed_at_their_level(
    tmp_path: Path, path: str, folders: int, example: str, further: str
) -> None:
    for number in range(6):
        for copy in range(2):
            name = path.format(label="xy"[number % 2], n=number, k=copy)
            write(tmp_path / name, 2 * number + copy + 1)
    (note,) = listed(tmp_path).patient_notes
    assert note.startswith(f"12 images are in {folders} folders such as {example}: are these")
    assert further in note
    assert ("folders above" in note) == bool(further)
    expression = note.rpartition("'")[0].rpartition("'")[2]
    assert listed(tmp_path, patient=expression).rows["group"].nunique() == 6


PEOPLE = ("anna", "berta", "carl", "dora")


@pytest.mark.parametrize(
    ("names", "expression"),
    [
        ([f"{name}_Meier_{n}" for name in PEOPLE for n in (1, 2)], r"^(\D+)\d"),
        ([f"Meier, {name} 2020-01-0{n}" for name in PEOPLE for n in (1, 2)], r"^(\D+)\d"),
        ([f"{name}_{side}" for name in PEOPLE for side in ("left", "right")], r"^(.+)[_\- ]"),
        ([f"{s}_{n}_{k}" for s in "ab" for n in (1, 2) for k in (0, 1)], r"^(.*?\d+)[_]"),
        ([f"{name}{n}" for n, name in enumerate("张李王赵张李王赵")], r"^(\D+)\d"),
    ],
)
def test_names_of_people_are_noticed(tmp_path: Path, names: list[str], expression: str) -> None:
    for number, name in enumerate(names):
        write(tmp_path / "xy"[number % 2] / f"{name}.png", number + 1)
    (note,) = listed(tmp_path).patient_notes
    assert note.startswith("8 names repeat 4 prefixes")
    assert note.endswith(f"'{expression}'")
    groups = listed(tmp_path, patient=expression).rows["group"]
    assert groups.value_counts().tolist() == [2, 2, 2, 2]


@pytest.mark.parametrize("name", ["IMG_{n:04d}", "x ({n})", "{n}", "x-{n}"])
def test_numbered_images_are_no_patients(tmp_path: Path, name: str) -> None:
    for number in range(8):
        write(tmp_path / "xy"[number % 2] / f"{name.format(n=number)}.png", number + 1)
    assert listed(tmp_path).patient_notes == []


@pytest.mark.parametrize(
    "name",
    [
        "{split}{label[0]}{n:02d}",  # trainc01
        "{split}_{label[0]}_{n:02d}",
        "{label}-{split}-{n}",
        "{split}_{label[0]}",
    ],
)
def test_names_of_classes_and_splits_are_no_patients(tmp_path: Path, name: str) -> None:
    cases = [(s, c, n) for s in ("train", "valid") for c in ("cancer", "healthy") for n in (1, 2)]
    for number, (split, label, n) in enumerate(cases):
        file = name.format(split=split, label=label, n=n)
        write(tmp_path / label / f"{file}.png", number + 1)
        write(tmp_path / label / f"{split}_{label[0]}" / f"{number}.png", number + 20)
    assert listed(tmp_path).patient_notes == []


def test_codes_of_a_class_folder_are_no_patients(tmp_path: Path) -> None:
    for number in range(12):
        label, split = ("glioma", "notumor")[number % 2], ("Training", "Testing")[number // 8]
        name = f"{split}/{label}/{split[:2]}-{label[:2]}_{number:04d}.png"
        write(tmp_path / name, number + 1)
    assert listed(tmp_path).patient_notes == []


@pytest.mark.parametrize(
    "name",
    [
        # names of published datasets: of BreakHis, OASIS, ADNI, TCGA, BraTS, and chest X-rays
        "{c}/SOB_{c}_DC-14-1{p}49AB-40-00{k}.png",
        "{c}/OAS1_000{p}_MR1_mpr-{k}_100.png",
        "{c}/ADNI_00{m}_S_041{p}_MR_{k}.png",
        "{c}/TCGA-A{m}-0{p}00-01A-TS{k}.png",
        "{c}/BraTS20_Training_00{p}_slice_{k}.png",
        "{c}/{s}_00{p}_{k}.png",
        # left and right
        "{c}/10{p}{side}.png",
        "{c}/{side}10{p}.png",
        "{c}/eye_{side}/10{p}.png",
        # a letter
        "{c}/1{p}{letter}.png",
        "{c}/a1.b_1{p}{letter}.png",
        # a date, an edition or a part of a UID before the number
        "{c}/2019010{m}_0{p}_{k}.png",
        "{c}/2019-01-0{m}-{p}-{k}.png",
        "{c}/1.2.826.{p}.{k}.png",
        "{c}/20{p}90133_{k}.png",  # no date
        "{c}/C4{p}P40_IMG_20150604_{k}.png",
        # no separator; and folders on a DICOM medium
        "{c}/Patient{p}Image{k}.png",
        "{c}/PA{p}/ST0/SE{k}/IM0.png",
        "{c}/P{p}/P{p}_slice_{k}_1.png",
    ],
)
def test_the_proposed_expression_finds_the_patients(tmp_path: Path, name: str) -> None:
    truth = {}
    for number in range(6):
        for copy in range(2):
            file = name.format(
                **{"c": "AB"[number % 2], "p": number, "k": copy, "m": number // 2 + 1},
                **{"side": "LR"[copy], "letter": "ab"[copy], "s": ("person", "IM-")[number % 2]},
            )
            write(tmp_path / file, 2 * number + copy + 1)
            truth[file] = number
    (note,) = listed(tmp_path).patient_notes
    expression = note.partition("source.patient: '")[2].partition("'")[0]
    rows = listed(tmp_path, patient=expression).rows
    assert len(rows) == 12
    pairs = set(zip(rows["path"].map(truth), rows["group"], strict=True))
    assert len(pairs) == rows["group"].nunique() == 6


@pytest.mark.parametrize(
    "names",
    [
        ["3f0a", "91c2b", "91c2d", "77e1f", "0b4c", "0b4e", "12d", "5a9b"],  # digests
        ["1a", "2b", "3c", "4d", "5e", "6f", "7g", "8h"],
        ["1c", "1d", "2c", "2d", "3c", "3d", "4c", "4d"],  # a series would begin with a
    ],
)
def test_letters_that_are_no_series_are_no_patients(tmp_path: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        write(tmp_path / "xy"[number % 2] / f"{name}.png", number + 1)
    assert listed(tmp_path).patient_notes == []


def test_letters_count_within_a_folder_and_names_are_shown_as_they_are(tmp_path: Path) -> None:
    for number in range(24):
        folder = ("benign", "malignant")[number % 2]
        write(tmp_path / folder / f"{number // 4 + 1}{'AB'[number // 2 % 2]}.png", number + 1)
    (note,) = listed(tmp_path).patient_notes
    assert note.startswith("24 images have 12 names that differ by a letter alone, such as 1A and")


def test_letters_of_classes_are_no_patients(tmp_path: Path) -> None:
    for number in range(8):
        label = "ab"[number % 2]
        write(tmp_path / label / f"{number // 2}{label}.png", number + 1)
    assert listed(tmp_path).patient_notes == []


def test_pairs_of_mias_are_told(tmp_path: Path) -> None:
    for number in range(1, 9):
        write(tmp_path / "xy"[number // 3 % 2] / f"mdb{number:03d}.png", number)
    (note,) = listed(tmp_path).patient_notes
    assert note.startswith("the names are those of MIAS, where mdb001 and mdb002 are the left and")
    assert "these are 4 such pairs" in note
    assert listed(tmp_path).rows["group"].isna().all()  # a note joins no images


def test_numbers_at_the_end_may_be_patients_where_few_stand_first(tmp_path: Path) -> None:
    for number in range(12):
        name = f"{'xy'[number % 2]}/{number // 6}_00{number % 6}.png"
        write(tmp_path / name, number + 1)
    (note,) = listed(tmp_path).patient_notes
    assert note.startswith("12 names repeat 2 prefixes such as 1_: are these patients?")
    assert note.endswith(r"or are the 6 numbers at the end, such as 005? Then '(\d+)\.[^.]+$'")
    assert listed(tmp_path, patient=r"(\d+)\.[^.]+$").rows["group"].nunique() == 6


@pytest.mark.parametrize("name", ["2019-01-0{n}", "2019010{n}_1", "{n}a_left", "a{n}-4f{n}"])
def test_dates_and_single_names_are_no_patients(tmp_path: Path, name: str) -> None:
    for number in range(8):
        write(tmp_path / "xy"[number % 2] / f"{name.format(n=number)}.png", number + 1)
    assert listed(tmp_path).patient_notes == []


@pytest.mark.parametrize("word", ["pat", "Patient_", "sub-"])
def test_numbers_after_a_word_for_patients_are_noticed_anywhere(tmp_path: Path, word: str) -> None:
    for number in range(8):
        name = f"slice{number % 2:02d}_{word}{number // 2:03d}_b.png"
        write(tmp_path / "xy"[number // 4] / name, number + 1)
    (note,) = listed(tmp_path).patient_notes
    assert note == (
        f"8 names contain a number such as {word}000: are these patients? Then set source.patient: "
        rf"'{word}(\d+)'"
    )
    groups = listed(tmp_path, patient=rf"{word}(\d+)").rows["group"]
    assert groups.value_counts().tolist() == [2, 2, 2, 2]


def test_names_that_the_expression_does_not_match_are_noted(tmp_path: Path) -> None:
    for number, name in enumerate(("x/p1_a", "x/p1_b", "y/p2_a", "y/scan")):
        write(tmp_path / f"{name}.png", number + 1)
    assert listed(tmp_path, patient=r"^p(\d)_").patient_notes == [
        r"source.patient ^p(\d)_ gives no patient for 1 paths such as y/scan.png"
    ]


@pytest.mark.parametrize(
    ("expression", "path", "patient"),
    [
        (r"^(\d+)_(left|right)", "normal/0123_left.jpg", "0123"),
        (r"^(\d+)_\d+", "effusion/00000013_026.png", "00000013"),
        (r"/(patient\d+)/", "train/x/patient00002/study1/view1.jpg", "patient00002"),
        (r"([^/]+)/[^/]+$", "a/p7/1.png", "p7"),
        (r"(?P<eye>left|right)_(?P<patient>\d+)", "a/left_5.png", "5"),
        (r"sub-\d+", "a/sub-01_t1.png", "sub-01"),
    ],
)
def test_an_expression_finds_the_patient(expression: str, path: str, patient: str) -> None:
    assert patients.by_pattern([path, "!.png"], expression) == [patient, None]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_an_expression_finds_letters_in_each_unicode_form(form: str) -> None:
    """MacOS writes the umlaut of a file's name as a mark of its own, and a keyboard does not."""
    composed, decomposed = (normalize(each, "Müller_größe_1.png") for each in ("NFC", "NFD"))
    expression = normalize(form, r"^(M[ü]ller)_größe")
    names = patients.by_pattern([composed, decomposed], expression)
    assert names == [normalize("NFC", "Müller")] * 2


@pytest.mark.parametrize(
    ("setting", "message"),
    [("(", "neither a column"), ("patiant", r"matches none of the 4 paths \(first: a/0\.png\)")],
)
def test_a_wrong_setting_is_one_message(tmp_path: Path, setting: str, message: str) -> None:
    class_tree(tmp_path, {"a": 2, "b": 2})
    with pytest.raises(MedscaleError, match=message):
        listed(tmp_path, patient=setting)


def test_another_kind_refuses_the_setting(tmp_path: Path) -> None:
    with pytest.raises(MedscaleError, match="for the kind folder"):
        scan(Source(kind="skin", path=tmp_path, patient="x"), None)


def test_a_dataset_whose_groups_are_copies_has_no_patients(tmp_path: Path) -> None:
    write(tmp_path / "Acne/one.png", 1)
    write(tmp_path / "Acne/aug_1_one.png", 2)
    write(tmp_path / "Eczema/two.png", 3)
    inventory = scan(Source(kind="skin", path=tmp_path), None)
    assert inventory.rows["group"].notna().all()
    assert inventory.patient_names.isna().all()


def test_spellings_in_file_names_and_headers_are_one_patient(tmp_path: Path) -> None:
    for number, name in enumerate(["P1_a", "p01_b", "P2_a", "P2_b"]):
        write(tmp_path / "ab"[number % 2] / f"{name}.png", number + 1)
    inventory = listed(tmp_path, patient="^([Pp][0-9]+)_")
    assert inventory.rows["group"].nunique() == 2
    assert "1 names of patients have several spellings" in inventory.patient_notes[0]
    assert len(set(patients.from_headers(["0012", "12", "13"]))) == 2
