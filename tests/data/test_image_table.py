"""Tables and expressions that describe a person's own images, and hints at what to set."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from data_trees import class_tree, reasons, write
from medscale.base.errors import MedscaleError
from medscale.data.inventory import Inventory
from medscale.data.kind import scan
from medscale.data.settings import Source

CLASSES = ["nevus", "melanoma"]
HEADER = ("image_id", "patient_id", "lesion_id", "diagnosis", "age")


def listed(root: Path, classes: list[str] | None = None, **settings: str) -> Inventory:
    return scan(Source(kind="folder", path=root, **settings), classes)


def flat(root: Path, below: str = "", separator: str = ",") -> Path:
    """Eight images in one folder, and metadata.csv as archives of dermoscopy have it."""
    lines = [separator.join(HEADER)]
    for number in range(8):
        write(root / below / f"ISIC_{number}.jpg", number + 1)
        values = (f"ISIC_{number}", f"P{number // 2}", f"L{number}", CLASSES[number % 2], "50")
        lines.append(separator.join(values))
    (root / "metadata.csv").write_text("\n".join(lines), encoding="utf-8")
    return root


def settings_of(message: str) -> dict[str, str]:
    """Return the settings that a hint names."""
    match = re.search(r"set in source (\{.*?\})", message)
    assert match is not None, message
    return dict(yaml.safe_load(match[1]))


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


def test_a_table_may_lie_above_the_folder_and_name_paths_from_there(tmp_path: Path) -> None:
    class_tree(tmp_path / "images", {"a": 2, "b": 2})
    paths = [f"images/{label}/{n}.png" for label in "ab" for n in range(2)]
    (tmp_path / "all.csv").write_text("\n".join(["path,split", *(f"{p},train" for p in paths)]))
    rows = listed(tmp_path / "images", table="../all.csv").rows
    assert rows["label"].tolist() == ["a", "a", "b", "b"]
    assert rows["split_published"].tolist() == ["train"] * 4


@pytest.mark.parametrize("folder", ["", "lists/", "CheXpert/"])
def test_paths_may_begin_in_the_raw_folder_or_the_folder_above(tmp_path: Path, folder: str) -> None:
    root = tmp_path / "CheXpert"
    class_tree(root, {"a": 2, "b": 2})
    start = {"": "CheXpert/", "lists/": "", "CheXpert/": "CheXpert/"}[folder]
    paths = [f"{start}{label}/{n}.png" for label in "ab" for n in range(2)]
    (root / folder).mkdir(exist_ok=True)
    lines = ["path,label", *(f"{path},{7 + number % 2}" for number, path in enumerate(paths))]
    (root / folder / "train.csv").write_text("\n".join(lines))
    inventory = listed(root, table=f"{folder}train.csv")
    assert inventory.rows["path"].tolist() == ["a/0.png", "a/1.png", "b/0.png", "b/1.png"]
    assert inventory.rows["label"].tolist() == ["7", "8", "7", "8"]


def test_paths_may_go_up(tmp_path: Path) -> None:
    class_tree(tmp_path, {"a": 2, "b": 2})
    paths = [f"../{label}/{n}.png" for label in "ab" for n in range(2)]
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/all.csv").write_text("\n".join(["path", *paths]))
    assert listed(tmp_path, table="lists/all.csv").rows["label"].tolist() == ["a", "a", "b", "b"]


def test_an_empty_name_is_not_the_tables_folder(tmp_path: Path) -> None:
    for patient in range(4):
        write(tmp_path / f"data/P{patient}/0.png", patient + 1)
    lines = ["path,label", *(f"P{patient},{'ab'[patient % 2]}" for patient in range(4)), ",a"]
    (tmp_path / "data/all.csv").write_text("\n".join(lines))
    assert listed(tmp_path, table="data/all.csv").rows["label"].tolist() == ["a", "b", "a", "b"]


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


def test_a_name_of_several_images_is_refused(tmp_path: Path) -> None:
    class_tree(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "index.csv").write_text("path,label\n0.png,a\n")
    with pytest.raises(MedscaleError, match=r"0.png is the name of 2 images \(a/0.png, b/0.png\)"):
        listed(tmp_path)


@pytest.mark.parametrize(
    ("path", "expression"),
    [
        ("{label}_{n}.png", "(nevus|melanoma)"),
        ("P{n}/{label}/1.png", "/(nevus|melanoma)/"),
        ("clinic/P{n}/{label}/1.png", "/(nevus|melanoma)/"),
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


def test_a_table_names_folders_by_their_last_part_where_it_is_clear(tmp_path: Path) -> None:
    for number, path in enumerate(["site1/P1/a", "site1/P2/a", "site2/P3/a", "site2/P3/b"]):
        write(tmp_path / f"{path}.png", number)
    (tmp_path / "index.csv").write_text("path,label\nP1,x\nP2,x\nP3,y\n")
    rows = listed(tmp_path).rows
    assert rows["label"].tolist() == ["x", "x", "y", "y"]
    assert rows["path"].tolist()[2:] == ["site2/P3/a.png", "site2/P3/b.png"]
    write(tmp_path / "site2/P1/c.png", 9)
    with pytest.raises(MedscaleError, match="P1 is the name of 2 folders"):
        listed(tmp_path)


def test_a_mask_that_a_table_names_by_its_path_is_an_image(tmp_path: Path) -> None:
    for number, name in enumerate(["a", "a_mask", "b"]):
        write(tmp_path / f"{name}.png", number)
    (tmp_path / "index.csv").write_text("path,label\na.png,x\na_mask.png,x\nb.png,y\n")
    assert listed(tmp_path).rows["path"].tolist() == ["a.png", "a_mask.png", "b.png"]


def test_columns_that_the_index_computes_are_not_read_from_a_table(tmp_path: Path) -> None:
    for number in range(2):
        write(tmp_path / f"{number}.png", number)
    header = "path,label,sha256,split_fold_1,split_fold_x"
    (tmp_path / "index.csv").write_text(f"{header}\n0.png,x,0,test,u\n1.png,y,0,test,v\n")
    inventory = listed(tmp_path)
    assert "index.csv: the columns sha256, split_fold_1 are not read" in inventory.notes
    assert inventory.rows["split_fold_x"].tolist() == ["u", "v"]
    assert "split_fold_1" not in inventory.rows


def test_a_number_of_a_missing_image_is_not_the_folder_of_that_name(tmp_path: Path) -> None:
    class_tree(tmp_path, {"0": 3, "1": 3})
    (tmp_path / "0/0.png").rename(tmp_path / "0/7.png")
    (tmp_path / "1/0.png").rename(tmp_path / "1/8.png")
    (tmp_path / "1/1.png").rename(tmp_path / "1/9.png")
    (tmp_path / "1/2.png").rename(tmp_path / "1/10.png")
    lines = [f"{number},{label},P{number}" for number, label in ((7, 0), (1, 0), (9, 1), (0, 1))]
    (tmp_path / "index.csv").write_text("\n".join(["path,label,patient", *lines]))
    rows = listed(tmp_path).rows
    assert rows[["path", "group"]].to_numpy().tolist() == [
        ["0/1.png", "P1"],
        ["0/7.png", "P7"],
        ["1/9.png", "P9"],
    ]


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


def labelled(root: Path, lines: list[str], header: str = "path,label") -> Path:
    """Images ``images/<n>.png``, one for each line of index.csv."""
    for number in range(len(lines)):
        write(root / f"images/{number}.png", number + 1)
    text = [f"images/{number}.png{line}" for number, line in enumerate(lines)]
    (root / "index.csv").write_text("\n".join([header, *text]) + "\n", encoding="utf-8")
    return root


@pytest.mark.parametrize("cell", ["", ",", ",NA", ",nan", ",NULL"])
def test_an_image_without_a_label_does_not_get_its_folders_name(tmp_path: Path, cell: str) -> None:
    inventory = listed(labelled(tmp_path, [",a", ",b", ",none", cell]))
    assert inventory.classes == ["a", "b", "none"]
    assert reasons(inventory)["images/3.png"] == "no label"


def test_an_image_without_a_label_gets_that_of_its_class_folder(tmp_path: Path) -> None:
    class_tree(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "index.csv").write_text("path,label\na/0.png,\na/1.png,a\nb/0.png,\nb/1.png,b\n")
    assert listed(tmp_path).rows["label"].tolist() == ["a", "a", "b", "b"]


def test_labels_that_are_the_same_number_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MedscaleError, match=r"'01', '1' differ only by"):
        listed(labelled(tmp_path, [",0", ",1", ",01"]))
    codes = ["L40", "L40.0", "L4", "L400"]  # of ICD-10
    assert listed(labelled(tmp_path, [f",{code}" for code in codes])).classes == sorted(codes)


def test_whole_numbers_with_a_decimal_point_are_the_classes_of_these_numbers(
    tmp_path: Path,
) -> None:
    """As pandas writes a column of numbers with an empty cell."""
    root = labelled(tmp_path, [",27.0", ",3.0", ",27.0", ","])
    for classes in (["3", "27"], None):
        inventory = listed(root, classes)
        assert sorted(inventory.classes) == ["27", "3"]
        assert inventory.rows["label"].tolist() == ["27", "3", "27"]
    grades = labelled(tmp_path, [",1.0", ",1.5", ",2.0", ",1.5"])
    assert listed(grades).classes == ["1.0", "1.5", "2.0"]


def test_labels_that_join_others_are_named(tmp_path: Path) -> None:
    (note,) = listed(labelled(tmp_path, [",edema", ",mass", ",edema|mass", ",x/y"])).notes
    assert note == "Labels that join others (1, such as edema|mass) are separate classes."


def test_a_folder_of_images_without_labels_is_named(tmp_path: Path) -> None:
    class_tree(tmp_path, {"a": 2, "b": 2, "Unlabeled": 2})
    (note,) = listed(tmp_path).notes
    assert note.startswith("'Unlabeled' is read as a class; name the study's classes with")
    assert not listed(tmp_path, ["a", "b"]).notes


def test_uncertain_labels_are_named_whatever_gives_the_labels(tmp_path: Path) -> None:
    root = labelled(tmp_path, [",1.0,x", ",0.0,x", ",-1.0,x"], "path,Pneumonia,other")
    (note,) = listed(root, label="Pneumonia").notes
    assert note.startswith("'-1' is read as a class; name the study's classes with")


def test_spellings_of_labels_without_images_are_refused_too(tmp_path: Path) -> None:
    """Otherwise an image's label depends on whether another image could be listed."""
    root = labelled(tmp_path, [",a", ",b"])
    with (root / "index.csv").open("a") as file:
        file.write("images/absent.png,A\n")
    with pytest.raises(MedscaleError, match="'A', 'a' differ only by"):
        listed(root)


def test_a_column_for_each_class_is_not_read(tmp_path: Path) -> None:
    root = labelled(tmp_path, [",1.0,0.0", ",0.0,1.0", ",0.0,0.0"], "path,MEL,NV")
    with pytest.raises(MedscaleError, match=r"no column label .*MEL, NV\. A column for each class"):
        listed(root)
    table = root / "index.csv"
    table.write_text(table.read_text().replace("path", "image"))
    with pytest.raises(MedscaleError, match=r"no column path.*\. A column for each class"):
        listed(root)
    table.rename(root / "truth.csv")
    with pytest.raises(MedscaleError, match=r"table: truth.csv, .*\. A column for each class"):
        listed(root)


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


def test_entries_with_other_metadata_are_named(tmp_path: Path) -> None:
    root = labelled(tmp_path, [",a,30", ",b,40"], "path,label,age")
    with (root / "index.csv").open("a") as file:
        file.write("images/1.png,b,41\n")
    inventory = listed(root)
    assert inventory.rows["age"].isna().tolist() == [False, True]
    assert any(
        "such as images/1.png, several entries with another age" in n for n in inventory.notes
    )


def test_paths_may_be_absolute(tmp_path: Path) -> None:
    root = labelled(tmp_path / "own images", [",a", ",b"])
    (root / "tables").mkdir()
    lines = [f"{root}/images/0.png,a", f"{root}/images/1.png,b"]
    (root / "tables/list.csv").write_text("\n".join(["path,label", *lines]))
    assert listed(root, table="tables/list.csv").rows["label"].tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("mark", "header"), [(";", "age, years"), (",", "age (y; m; d)"), ("\t", "a, b; c, d, e")]
)
def test_the_header_may_contain_another_separator(tmp_path: Path, mark: str, header: str) -> None:
    lines = [f"{mark}{label}{mark}{number}" for number, label in enumerate("ab")]
    root = labelled(tmp_path, lines, mark.join(["path", "label", header]))
    assert listed(root).rows[header].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("header", "cells", "expected", "note"),
    [
        ("path;label;age", ["30,5", "41", ""], [30.5, 41, None], None),
        ("path;label;age", ["0,125", "1,250", "2,500"], [0.125, 1.25, 2.5], None),
        ("path;label;age", ["1,125", "1,250", ""], ["1,125", "1,250", None], "1,125"),
        ("path;label;age", ["30,5", "1.250", ""], ["30,5", "1.250", None], "30,5"),
        ("path;label;age", ["30.5", "1.250", ""], [30.5, 1.25, None], None),
        ("path,label,age", ["30", "Unknown", "?"], [30, None, None], None),
        ("path,label,sex", ["f", "unknown", ""], ["f", "unknown", None], None),
        ("path;label;age", ["30,5", "old", "41"], ["30,5", "old", "41"], "old"),
        ("path,label,age", ['"30,5"', '"41,5"', '""'], ["30,5", "41,5", None], "30,5"),
    ],
)
def test_a_column_is_of_numbers_or_of_words(
    tmp_path: Path, header: str, cells: list[str], expected: list[object], note: str | None
) -> None:
    mark = header[4]
    lines = [f"{mark}{'ab'[n % 2]}{mark}{cell}" for n, cell in enumerate(cells)]
    inventory = listed(labelled(tmp_path, lines, header))
    values = inventory.rows[header[11:]].tolist()
    assert [None if value != value else value for value in values] == expected
    assert [f"such as {note!r}" in text for text in inventory.notes] == ([True] if note else [])
