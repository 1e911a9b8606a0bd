"""Tables of images: their paths, labels and columns, and their faults."""

from __future__ import annotations

import math
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from data_trees import (
    APART,
    check_complete,
    class_tree,
    index_and_summary,
    listed,
    reasons,
    settings_of,
    write,
)
from medscale.base.errors import MedscaleError


def labelled(root: Path, lines: list[str], header: str = "path,label") -> Path:
    """Images ``images/<n>.png``, one for each line of index.csv."""
    for number in range(len(lines)):
        write(root / f"images/{number}.png", number + 1)
    text = [f"images/{number}.png{line}" for number, line in enumerate(lines)]
    (root / "index.csv").write_text("\n".join([header, *text]) + "\n", encoding="utf-8")
    return root


def with_index(root: Path, text: str, encoding: str = "utf-8") -> Path:
    (root / "index.csv").write_text(text, encoding=encoding)
    return root


def test_index_csv_gives_patients_splits_and_metadata(tmp_path: Path) -> None:
    class_tree(tmp_path, {"a": 3, "b": 2})
    text = (
        "path,label,patient,split,age,width\n./a/0.png,a,007,train,50,1\na\\1.png,,008,valid,,1\n"
    )
    text += "/b/0.png,b,,test,61,1\n"
    inventory = listed(with_index(tmp_path, text + "b/9.png,b,1,,,\n", "utf-8-sig"))
    rows = inventory.rows.set_index("path")
    assert rows["label"].to_dict() == {"a/0.png": "a", "a/1.png": "a", "b/0.png": "b"}
    assert rows["group"].to_dict() == {"a/0.png": "007", "a/1.png": "008", "b/0.png": None}
    assert list(rows["split_published"]) == ["train", "val", "test"]
    assert rows["age"]["b/0.png"] == 61
    assert np.isnan(rows["age"]["a/1.png"])
    assert "width" not in rows
    assert "width" in inventory.notes[0]
    assert reasons(inventory) == {
        "a/2.png": "not listed",
        "b/1.png": "not listed",
        "b/9.png": "listed but missing",
    }
    (tmp_path / "index.csv").unlink()  # the table is no file of the dataset
    check_complete(tmp_path, inventory)


def test_index_csv_conflicts_are_left_out(tmp_path: Path) -> None:
    class_tree(tmp_path, {"a": 3, "b": 3})
    text = "path,label\na/0.png,a\na/0.png,a\na/1.png,b\na/2.png,a\na/2.png,b\na/2.png,a\n"
    text += "b/0.png,b\nb/1.png,\n"
    inventory = listed(with_index(tmp_path, text))
    assert sorted(inventory.rows["path"]) == ["a/0.png", "b/0.png", "b/1.png"]
    assert reasons(inventory) == {
        "a/1.png": "conflicting label",
        "a/2.png": "conflicting label",
        "b/2.png": "not listed",
    }
    (tmp_path / "index.csv").unlink()
    check_complete(tmp_path, inventory)


def test_index_csv_meets_accents_in_another_unicode_form(tmp_path: Path) -> None:
    write(tmp_path / unicodedata.normalize("NFD", "é/1.png"), 1)
    write(tmp_path / "b/1.png", 2)
    with_index(tmp_path, f"path,label\n{unicodedata.normalize('NFC', 'é/1.png')},e\nb/1.png,b\n")
    assert len(listed(tmp_path).rows) == 2


def test_words_of_a_table_have_one_unicode_form(tmp_path: Path) -> None:
    """Otherwise split.held_out would not find a source that looks the same in the table."""
    for number in range(2):
        write(tmp_path / f"{number}.png", number + 1)
    composed, decomposed = (unicodedata.normalize(form, "Köln") for form in ("NFC", "NFD"))
    header = f"path,label,source,{unicodedata.normalize('NFD', 'größe')}"
    rows = f"0.png,a,{composed},{composed}\n1.png,b,{decomposed},{decomposed}"
    with_index(tmp_path, f"{header}\n{rows}\n")
    index = listed(tmp_path).rows
    assert index["source"].tolist() == [composed] * 2
    assert index[unicodedata.normalize("NFC", "größe")].tolist() == [composed] * 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"file,label\na/0.png,a\n", "no column path; it has: file, label"),
        (b"path,label,split\na/0.png,a,holdout\n", "a/0.png: split 'holdout' is not one of"),
        (b"path,label\na/0.png,\xe9\n", "cannot be read as a CSV file in UTF-8"),
        (b'path,label\n"a/0.png,a\n', "cannot be read as a CSV file"),
        *(
            (
                f"path,label\n{path}/0.{ending},a\n{path}/1.{ending},b\n".encode(),
                rf"names 2 images, none of which is there \(first: {path}/0.{ending}\).*a/0\.png",
            )
            for path, ending in (("none", "png"), ("/home/me/data/a", "png"), ("a", "jpg"))
        ),
    ],
)
def test_a_broken_index_csv_is_one_message(tmp_path: Path, content: bytes, message: str) -> None:
    class_tree(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "index.csv").write_bytes(content)
    with pytest.raises(MedscaleError, match=message):
        listed(tmp_path)


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


def test_a_name_of_several_images_is_refused(tmp_path: Path) -> None:
    class_tree(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "index.csv").write_text("path,label\n0.png,a\n")
    with pytest.raises(MedscaleError, match=r"0.png is the name of 2 images \(a/0.png, b/0.png\)"):
        listed(tmp_path)


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


def test_a_list_of_labels_joins_them(tmp_path: Path) -> None:
    lines = [",edema", ",mass", ",\"['edema', 'mass']\"", ",x"]
    (note,) = listed(labelled(tmp_path, lines)).notes
    assert note.startswith("Labels that join others (1, such as ['edema', 'mass'])")


def test_a_class_may_have_the_name_of_a_missing_value(tmp_path: Path) -> None:
    root = labelled(tmp_path, [",NA", ",b", ",NA", ",c"])
    assert listed(root, ["NA", "b"]).rows["label"].tolist() == ["NA", "b", "NA"]
    assert listed(root, ["b", "c"]).rows["label"].tolist() == ["b", "c"]


@pytest.mark.parametrize("yes", ["True", "TRUE", "true", "1.0"])
def test_columns_of_classes_may_have_words(tmp_path: Path, yes: str) -> None:
    no = {"True": "False", "TRUE": "FALSE", "true": "false", "1.0": "0.0"}[yes]
    root = labelled(tmp_path, [f",{yes},{no}", f",{no},{yes}"], "path,MEL,NV")
    assert listed(root, label=["MEL", "NV"]).rows["label"].tolist() == ["MEL", "NV"]


def test_uncertain_labels_are_named_whatever_gives_the_labels(tmp_path: Path) -> None:
    root = labelled(tmp_path, [",1.0,x", ",0.0,x", ",-1.0,x"], "path,Pneumonia,other")
    (note,) = listed(root, label="Pneumonia").notes
    assert note.startswith("'-1' is read as a class; name the study's classes with")


def test_labels_that_look_the_same_are_refused(tmp_path: Path) -> None:
    root = labelled(tmp_path, [",a", ",b", ",b\u200b"])
    with pytest.raises(MedscaleError, match="differ only by"):
        listed(root)


def test_spellings_of_labels_without_images_are_refused_too(tmp_path: Path) -> None:
    """Otherwise an image's label depends on whether another image could be listed."""
    root = labelled(tmp_path, [",a", ",b"])
    with (root / "index.csv").open("a") as file:
        file.write("images/absent.png,A\n")
    with pytest.raises(MedscaleError, match="'A', 'a' differ only by"):
        listed(root)


def test_a_column_for_each_class_is_read_where_the_settings_name_it(tmp_path: Path) -> None:
    root = labelled(tmp_path, [",1.0,0.0", ",0.0,1.0", ",0.0,0.0", ",1,0"], "path,MEL,NV")
    message = r"no column label .*MEL, NV; if .* class each, set source.label: \[MEL, NV\]"
    with pytest.raises(MedscaleError, match=message):
        listed(root)
    inventory = listed(root, label=["MEL", "NV"])
    assert inventory.rows["label"].tolist() == ["MEL", "NV", "MEL"]
    assert reasons(inventory) == {"images/2.png": "no label"}
    assert not {"MEL", "NV"} & {*inventory.rows}, "they are labels, not metadata"
    with pytest.raises(MedscaleError, match=r"no column BCC \(source.label\); .*it has: path, MEL"):
        listed(root, label=["MEL", "BCC"])
    table = root / "index.csv"
    table.write_text(table.read_text().replace("path", "image"))
    with pytest.raises(MedscaleError, match=r"no column path.*, set source.label: \[MEL, NV\]"):
        listed(root)
    table.rename(root / "truth.csv")
    with pytest.raises(MedscaleError) as error:
        listed(root, ["NV", "MEL"])
    assert listed(root, ["NV", "MEL"], **settings_of(str(error.value))).rows.shape[0] == 3


def test_columns_of_classes_may_have_unknown_values(tmp_path: Path) -> None:
    classes = ["No Finding", "Pneumonia"]
    lines = [",1.0,,58", ",-1.0,1.0,60", ",,,70", ",1.0,1.0,9"]  # as CheXpert
    root = labelled(tmp_path, lines, "file,No Finding,Pneumonia,age")
    (root / "index.csv").rename(root / "train.csv")
    with pytest.raises(MedscaleError) as error:
        listed(root, classes)
    settings = settings_of(str(error.value))
    assert settings == {"table": "train.csv", "image": "file", "label": classes}
    inventory = listed(root, classes, **settings)
    assert inventory.rows[["label", "age"]].to_numpy().tolist() == [
        ["No Finding", 58],
        ["Pneumonia", 60],
    ]
    assert reasons(inventory) == {
        "images/2.png": "no label",
        "images/3.png": "class not in the study",
    }
    with pytest.raises(MedscaleError, match="the column age has the value '58'; the columns of"):
        listed(root, classes, table="train.csv", image="file", label=["No Finding", "age"])


def test_entries_with_other_metadata_are_named(tmp_path: Path) -> None:
    root = labelled(tmp_path, [",a,30", ",b,40"], "path,label,age")
    with (root / "index.csv").open("a") as file:
        file.write("images/1.png,b,41\n")
    inventory = listed(root)
    assert inventory.rows["age"].tolist() == pytest.approx([30, math.nan], nan_ok=True)
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
        ("path,label,age", ["30", "31", "32"], [30, 31, 32], None),
        ("path,label,dose", ["NA", "2.5", "NA"], [None, 2.5, None], None),
        ("path,label,code", ["000", "001", "002"], ["000", "001", "002"], None),
        ("path,label,mixed", ["4", "x", "4"], ["4", "x", "4"], "x"),
        ("path,label,age", ['"30,5"', '"41,5"', '""'], ["30,5", "41,5", None], "30,5"),
    ],
)
def test_a_column_is_of_numbers_or_of_words(
    tmp_path: Path, header: str, cells: list[str], expected: list[object], note: str | None
) -> None:
    mark = header[4]
    lines = [f"{mark}{'ab'[n % 2]}{mark}{cell}" for n, cell in enumerate(cells)]
    inventory = listed(labelled(tmp_path, lines, header))
    name = header[11:]
    values = inventory.rows[name].tolist()
    assert [None if value != value else value for value in values] == expected
    sentence = f"the column {name} has numbers and words (such as {note!r})"
    assert [sentence in text for text in inventory.notes] == ([True] if note else [])


def test_lines_that_end_in_a_comma_are_read(tmp_path: Path) -> None:
    header, values = "path,label,patient", [f",{'ab'[n % 2]},P{n // 2}," for n in range(4)]
    root = labelled(tmp_path, values, header)
    assert listed(root).rows["group"].tolist() == ["P0", "P0", "P1", "P1"]
    labelled(root, [f"{value}Smith" for value in values], header)
    with pytest.raises(MedscaleError, match="row 2 has more values than the 3 columns"):
        listed(root)


def test_capitals_and_underscores_in_the_header(tmp_path: Path) -> None:
    lines = [f",{'ab'[n % 2]},r{n},d,{n},train" for n in range(12)]
    inventory = listed(labelled(tmp_path, lines, "Path,Label,_reason,_detail,_frame,Split"))
    assert set(inventory.rows["split_published"]) == {"train"}
    settings = {"image": "Path", "label": "Label"}
    assert listed(tmp_path, **settings).rows.equals(inventory.rows)
    index, _ = index_and_summary(tmp_path, inventory, APART)
    index = index.set_index("path").loc[[f"images/{n}.png" for n in range(12)]]
    assert index["_reason"].tolist() == [f"r{n}" for n in range(12)]
    assert index["_frame"].tolist() == list(range(12))


def test_the_greek_question_mark_does_not_separate_cells(tmp_path: Path) -> None:
    """Unicode's composed form of it is a semicolon."""
    for number in range(2):
        write(tmp_path / f"{number}.png", number + 1)
    with_index(tmp_path, "path;label;source\n0.png;a;ti\u037e\n1.png;b;x\n")
    assert listed(tmp_path).rows["source"].tolist() == ["ti;", "x"]
