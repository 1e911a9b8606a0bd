"""Hints at the settings that read a folder of images: a table, classes or patients in paths."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_trees import class_tree, listed, reasons, settings_of, write
from medscale.base.errors import MedscaleError

CLASSES = ["nevus", "melanoma"]


HEADER = ("image_id", "patient_id", "lesion_id", "diagnosis", "age")


def flat(root: Path, below: str = "", separator: str = ",") -> Path:
    """Eight images in one folder, and metadata.csv as archives of dermoscopy have it."""
    lines = [separator.join(HEADER)]
    for number in range(8):
        write(root / below / f"ISIC_{number}.jpg", number + 1)
        values = (f"ISIC_{number}", f"P{number // 2}", f"L{number}", CLASSES[number % 2], "50")
        lines.append(separator.join(values))
    (root / "metadata.csv").write_text("\n".join(lines), encoding="utf-8")
    return root


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("below", ["", "images", "a/b"])
def test_the_hint_at_a_table_is_the_setting_that_reads_it(
    tmp_path: Path, below: str, separator: str
) -> None:
    root = flat(tmp_path, below, separator)
    with pytest.raises(MedscaleError, match="8 of the 8 images and is not read") as error:
        listed(root, CLASSES)
    assert "patient_id then names the patients" in str(error.value)
    inventory = listed(root, CLASSES, **settings_of(str(error.value)))
    assert inventory.rows["label"].tolist() == CLASSES * 4
    assert inventory.rows["group"].tolist() == [f"P{n // 2}" for n in range(8)]
    assert inventory.patients == "column patient_id of metadata.csv"
    assert inventory.excluded.empty


def test_a_table_of_class_folders_is_not_passed_over(tmp_path: Path) -> None:
    class_tree(tmp_path, {"a": 3, "b": 3})
    lines = [f"{label}/{n}.png,{label.upper()},{label},P{n}" for label in "ab" for n in range(3)]
    (tmp_path / "list.csv").write_text("\n".join(["file,x,finding,subject", *lines]))
    (tmp_path / "other.csv").write_text("hospital,beds\nours,9\n")
    (note,) = listed(tmp_path).notes
    assert settings_of(note) == {"table": "list.csv", "image": "file", "label": "finding"}
    assert "subject then names the patients" in note
    assert listed(tmp_path, **settings_of(note)).notes == [
        "list.csv: the column subject is read as the patient."
    ]
    assert listed(tmp_path, **settings_of(note), patient="subject").notes == []
    (tmp_path / "list.csv").write_text("\n".join(["file,x,finding,lesion_id", *lines]))
    (warning,) = listed(tmp_path, **settings_of(note), patient="lesion_id").notes
    assert "this column does not name patients" in warning


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"table": "metadat.csv"}, r"no file metadat.csv; did you mean 'metadata.csv'\?"),
        ({"table": "metadata.csv"}, "no column path; it has: image_id, .*by source.image"),
        ({"table": "metadata.csv", "image": "id"}, r"no column id \(source.image\)"),
        ({"image": "image_id"}, "has no index.csv; set source.table"),
        (
            {"table": "metadata.csv", "image": "image_id", "label": "diagnoses"},
            "matches none of the 8 paths .* did you mean 'diagnosis'",
        ),
    ],
)
def test_a_wrong_setting_of_a_table_is_one_message(
    tmp_path: Path, settings: dict[str, str], message: str
) -> None:
    with pytest.raises(MedscaleError, match=message):
        listed(flat(tmp_path), CLASSES, **settings)


@pytest.mark.parametrize(
    ("names", "classes", "expression"),
    [
        (["3f01a", "41b20"], ["0", "1"], None),  # digits of other numbers
        (["10_left_0", "21_left_1"], ["0", "1"], "(?<![A-Za-z0-9])(0|1)(?![A-Za-z0-9])"),
        (["nv7", "mel31"], ["nv", "mel"], "(?<![A-Za-z])(mel|nv)(?![A-Za-z])"),
        (["envy7", "melon1"], ["nv", "mel"], None),
        (["tumor_1", "tumor_free_1"], ["tumor", "tumor_free"], "(tumor_free|tumor)"),
    ],
)
def test_classes_are_recognized_in_names_where_they_can_be_nothing_else(
    tmp_path: Path, names: list[str], classes: list[str], expression: str | None
) -> None:
    for number, name in enumerate(names):
        write(tmp_path / f"images/{name}.png", number + 1)
    with pytest.raises(MedscaleError) as error:
        listed(tmp_path, classes)
    assert ("set source.label" in str(error.value)) == (expression is not None)
    if expression is not None:
        assert f"set source.label: '{expression}'" in str(error.value)
        assert listed(tmp_path, classes, label=expression).rows["label"].tolist() == sorted(classes)


def test_a_table_called_metadata_is_of_no_published_dataset(tmp_path: Path) -> None:
    with pytest.raises(MedscaleError) as error:
        listed(flat(tmp_path / "ours"), CLASSES)
    assert "source.kind" not in str(error.value)
    write(flat(tmp_path / "smdg") / "full-fundus/full-fundus/A-1.png", 1)
    with pytest.raises(MedscaleError, match=r"set source\.kind: smdg"):
        listed(tmp_path / "smdg", CLASSES)


@pytest.mark.parametrize(
    ("path", "expression"),
    [
        ("{label}_{n}.png", "(melanoma|nevus)"),
        ("P{n}/{label}/1.png", "/(melanoma|nevus)/"),
        ("clinic/P{n}/{label}/1.png", "/(melanoma|nevus)/"),
        ("P{n}/study1_{label}/1.png", "(melanoma|nevus)[^/]*/"),  # as MURA
    ],
)
def test_the_hint_at_classes_in_paths_is_the_setting_that_reads_them(
    tmp_path: Path, path: str, expression: str
) -> None:
    for number in range(8):
        write(tmp_path / path.format(label=CLASSES[number % 2], n=number), number + 1)
    write(tmp_path / "odd/stray.png", 99)
    with pytest.raises(MedscaleError) as error:
        listed(tmp_path, CLASSES)
    assert f"set source.label: '{expression}'" in str(error.value)
    inventory = listed(tmp_path, CLASSES, label=expression)
    assert inventory.rows["label"].value_counts().to_dict() == dict.fromkeys(CLASSES, 4)
    assert reasons(inventory) == {"odd/stray.png": "no label"}
    if "P{n}" in path and not path.startswith("clinic"):
        (note,) = inventory.patient_notes
        assert note.endswith(
            "8 folders such as P0: are these patients? Then set source.patient: '^([^/]+)/'"
        )


def test_folders_in_a_class_may_be_patients(tmp_path: Path) -> None:
    for number in range(8):
        write(tmp_path / f"{'ab'[number % 2]}/case {number // 2}/x.png", number + 1)
    (note,) = listed(tmp_path).patient_notes
    expression = note.partition("source.patient: '")[2].rstrip("'")
    assert listed(tmp_path, patient=expression).rows["group"].nunique() == 4


def test_a_class_in_other_capitals_is_suggested(tmp_path: Path) -> None:
    for split in ("train", "test"):
        class_tree(tmp_path / split, {"NORMAL": 2, "PNEUMONIA": 2})
    with pytest.raises(MedscaleError, match=r"did you mean 'NORMAL'\?.*labels: NORMAL, PNEUMONIA"):
        listed(tmp_path, ["normal", "pneumonia"])


def test_the_folder_of_one_class_is_recognized(tmp_path: Path) -> None:
    class_tree(tmp_path, {"a": 2, "b": 2})
    with pytest.raises(MedscaleError, match=r"set source\.path to the folder above"):
        listed(tmp_path / "a", ["a", "b"])


def test_a_table_of_patients_labels_all_images_in_their_folders(tmp_path: Path) -> None:
    for number, path in enumerate(["P1/ST1/a", "P1/ST1/b", "P2/ST1/a", "P3/ST2/a", "P3/ST2/b"]):
        write(tmp_path / f"{path}.png", number + 1)
    (tmp_path / "labels.csv").write_text("Patient,dx\nP1,nevus\nP2,nevus\nP3,melanoma\nP4,nevus\n")
    with pytest.raises(MedscaleError, match="names 5 of the 5 images and is not read") as error:
        listed(tmp_path, CLASSES)
    settings = settings_of(str(error.value))
    assert settings == {"table": "labels.csv", "image": "Patient", "label": "dx"}
    inventory = listed(tmp_path, CLASSES, **settings)
    assert inventory.rows["label"].tolist() == ["nevus"] * 3 + ["melanoma"] * 2
    assert inventory.rows["group"].tolist() == ["P1", "P1", "P2", "P3", "P3"]
    assert inventory.patients == "column Patient of labels.csv"
    assert reasons(inventory) == {"P4": "listed but missing"}
    write(tmp_path / "P1/ST1/a_mask.png", 9)
    with_mask = listed(tmp_path, CLASSES, **settings)
    assert with_mask.rows.equals(inventory.rows)
    assert reasons(with_mask)["P1/ST1/a_mask.png"] == "mask by its name"


def test_the_hint_names_the_column_of_the_classes_or_the_labels_that_differ(tmp_path: Path) -> None:
    for number in range(4):
        write(tmp_path / f"x{number}.png", number + 1)
    lines = [f"x{n},{n % 2},{('benign', 'malignant')[n % 2]}" for n in range(4)]
    (tmp_path / "train.csv").write_text("\n".join(["image,target,kind", *lines]))
    with pytest.raises(MedscaleError) as error:
        listed(tmp_path, ["benign", "malignant"])
    assert settings_of(str(error.value))["label"] == "kind"
    with pytest.raises(MedscaleError, match="its labels are 0, 1: name them in `classes`") as error:
        listed(tmp_path, ["healthy", "ill"])
    assert settings_of(str(error.value))["label"] == "target"


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (("0", "1"), "its column id lacks the leading zeros of the file names .such as 0000."),
        (("x0", "x1"), "no column has the paths, file names or folders of the images .an image: "),
    ],
)
def test_a_table_whose_names_do_not_fit_says_why(
    tmp_path: Path, cells: tuple[str, str], message: str
) -> None:
    for number in range(2):
        write(tmp_path / f"{number:04d}.png", number + 1)
    (tmp_path / "labels.csv").write_text(f"id,label\n{cells[0]},nevus\n{cells[1]},melanoma\n")
    with pytest.raises(MedscaleError, match=message):
        listed(tmp_path, CLASSES)


def test_a_table_without_rows_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "0000.png", 1)
    (tmp_path / "labels.csv").write_text("id,label\n")
    with pytest.raises(MedscaleError, match="holds no usable images") as error:
        listed(tmp_path, CLASSES)
    assert "labels.csv" not in str(error.value)


def test_each_of_several_tables_is_named(tmp_path: Path) -> None:
    root = flat(tmp_path)
    lines = (root / "metadata.csv").read_text().splitlines()
    (root / "metadata.csv").unlink()
    (root / "train.csv").write_text("\n".join(lines[:7]))
    (root / "test.csv").write_text("\n".join([lines[0], *lines[7:]]))
    with pytest.raises(MedscaleError) as error:
        listed(root, CLASSES)
    for text in ("test.csv names 2 of the 8", "train.csv names 6 of the 8", "Only one table is"):
        assert text in str(error.value)


def test_a_folder_of_images_without_labels_is_named(tmp_path: Path) -> None:
    class_tree(tmp_path, {"a": 2, "b": 2, "Unlabeled": 2})
    (note,) = listed(tmp_path).notes
    assert note.startswith("'Unlabeled' is read as a class; name the study's classes with")
    assert not listed(tmp_path, ["a", "b"]).notes


def test_a_dataset_of_a_known_kind_is_recognized(tmp_path: Path) -> None:
    write(tmp_path / "ISIC-2017_Training_Data" / "ISIC_0000000.png", 1)
    with pytest.raises(MedscaleError, match="of the dataset kind isic2017"):
        listed(tmp_path)


def test_folders_in_all_class_folders_may_be_the_classes(tmp_path: Path) -> None:
    for number in range(8):
        write(tmp_path / f"P{number % 3}/{CLASSES[number // 4]}/{number}.png", number + 1)
    (note,) = listed(tmp_path).notes
    assert note.endswith("if these are the classes, set source.label: '/(melanoma|nevus)/'")
    assert not listed(tmp_path, label="/(melanoma|nevus)/").notes
    for label in "ab":
        for number in range(3):
            write(tmp_path / f"y/{label}/ST{number}/1.png", 3 * ord(label) + number)
        write(tmp_path / f"x/{label}/images/1.png", 20 + ord(label))
        write(tmp_path / f"x/{label}/masks/1.png", 30 + ord(label))
    assert not listed(tmp_path / "x").notes
    assert not listed(tmp_path / "y").notes
