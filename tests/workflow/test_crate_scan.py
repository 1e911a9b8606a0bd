"""What a crate packs: copies without names, and the search for names: what is no finding."""

from __future__ import annotations

import gzip
import html
import io
import json
import struct
import unicodedata
import zipfile
import zlib
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pypdf import PdfWriter
from safetensors.numpy import save_file

import hostile
from medscale.base.errors import MedscaleError
from medscale.base.files import write_csv
from medscale.base.text import latex, markdown
from medscale.report import style
from medscale.workflow.crate.anonymous import copy
from medscale.workflow.crate.scan import Finding, Names, names_of_studies, refuse, scan

PATIENT = "Jörg_4711"
HEADER = "a DICOM header of the patient"


@pytest.mark.parametrize(
    "text",
    [
        "1.2.840.10008.1.2.4.50 is JPEG, torch 2.11.0, 192.168.0.1, 0.123456789",
        "see @article and the folder home/ of /srv/homework; patients: column PatientID of x.csv",
        "PAT-08150 and XPAT-0815X, 47110_left.png; between 1.123456-2.123456, 0.123456",
    ],
)
def test_what_only_looks_alike_is_no_finding(tmp_path, text):
    (tmp_path / "x.md").write_text(text)
    names = Names("a name", ["PAT-0815", "12", "123456", "4711_left.png"])
    assert list(scan(tmp_path, [names])) == []
    assert names.too_short == 1


def test_the_stem_of_a_file_that_is_no_image_is_a_word(tmp_path):
    rows = ["demo.json,excluded,not an image by its name,", "demo_7.png,excluded,zero bytes,"]
    rows.append("labels.csv,excluded,table that is read,not an image")
    (tmp_path / "audit.csv").write_text("\n".join(["path,action,reason,detail", *rows]) + "\n")
    folders = [tmp_path, tmp_path / "absent"]  # a point of a sweep has no data of its own
    names = names_of_studies(folders, file_names=False)
    text = tmp_path / "text" / "x.md"
    text.parent.mkdir()
    for content, count in (
        ("a demo", 0),
        ("the labels", 0),
        ("see demo.json", 1),
        ("see labels.csv", 1),
        ("see demo_7", 1),
    ):
        text.write_text(content)
        assert len(list(scan(text.parent, names))) == count, content


def test_a_dicom_file_under_any_name_is_found(tmp_path):
    (tmp_path / "x.txt").write_bytes(hostile.dicom(8, 8, bytes(64)))
    assert list(scan(tmp_path)) == [Finding("x.txt", "whole file", "a DICOM file")]


def test_a_dicom_file_in_an_archive_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("b/scan.png", bytes(128) + b"DICM")
    (finding,) = scan(tmp_path)
    assert finding == Finding("a.zip", "b/scan.png", "a DICOM file")


def test_a_refusal_names_a_kind_once_for_each_file_and_counts_its_other_places():
    findings = [Finding("a.csv", f"line {number}", "a home folder") for number in (3, 5, 9)]
    findings += [Finding("a.csv", "line 7", "a host"), Finding("b.csv", "line 1", "a host")]
    with pytest.raises(MedscaleError) as error:
        refuse(findings, "the crate")
    assert str(error.value).splitlines()[1:] == [
        "  a.csv, line 3: a home folder (and 2 more)",
        "  a.csv, line 7: a host",
        "  b.csv, line 1: a host",
    ]
    many = [Finding(f"{number}.csv", "line 1", "a host") for number in range(102)]
    with pytest.raises(MedscaleError, match=r"99\.csv, line 1: a host\n  and 2 more$"):
        refuse(many, "the crate")
    refuse([], "the crate")


def test_predictions_of_external_images_keep_all_but_names(tmp_path: Path) -> None:
    rows = pd.DataFrame(
        {"path": ["a.png", "NA", "a.png"], "label": ["NA", "=1", "NA"], "group": ["p2", "p1", "p2"]}
    ).assign(copy=[None, None, None], seed=1, p_0=[0.1, 1 / 3, 2 / 3])
    write_csv(tmp_path / "original.csv", rows)
    copy(tmp_path / "original.csv", tmp_path / "copy.csv", "external/x/y/predictions.csv")
    names = [f"anonymous0000000{number}" for number in (0, 1)]
    expected = rows.assign(path=[*names, names[0]], group=[names[1], names[0], names[1]])
    write_csv(tmp_path / "expected.csv", expected)
    assert (tmp_path / "copy.csv").read_text() == (tmp_path / "expected.csv").read_text()


@pytest.mark.parametrize(("name", "kinds"), [("headers.py", []), ("headers.txt", [HEADER])])
def test_a_module_that_writes_a_header_is_no_finding(tmp_path, name, kinds):
    line = f"PatientID = name  # {PATIENT}"
    with zipfile.ZipFile(tmp_path / "crate.zip", "w") as file:
        file.writestr(f"src/{name}", line)
    findings = scan(tmp_path / "crate.zip", [Names("a name", [PATIENT])])
    assert [finding.kind for finding in findings] == [*kinds, "a name"]


def png(path: Path) -> None:
    """Write a PNG with the patient in a deflated text."""
    texts = PngInfo()
    texts.add_itxt("Comment", f"of {PATIENT}", zip=True)
    Image.new("L", (2, 2)).save(path, pnginfo=texts)


def figure(path: Path, text: str = PATIENT) -> None:
    with style.house():
        drawing = style.new(1, 4)
        drawing.text(0.1, 0.5, f"of {text}")
        style.save(drawing, path)


def parquet(path: Path) -> None:
    pd.DataFrame({"boxes": [[{"of": PATIENT}]]}).to_parquet(path)


def archive(path: Path, text: str = f"of {PATIENT}") -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a/note.csv", text)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("inner.zip", inner.getvalue())


WRITERS = {
    "table.csv": lambda path: path.write_text(f"patient\n{PATIENT}-2\n", encoding="latin-1"),
    "wide.csv": lambda path: path.write_text(f"patient\n{PATIENT}\n", encoding="utf-16"),
    "without_mark.csv": lambda path: path.write_text("x\n123456\n", encoding="utf-16-le"),
    "packed.csv.gz": lambda path: path.write_bytes(gzip.compress(f"{PATIENT}\n".encode())),
    "note.json": lambda path: path.write_text(json.dumps({"of": PATIENT})),
    "table.tex": lambda path: path.write_text(latex(PATIENT), encoding="utf-8"),
    "card.md": lambda path: path.write_text(f"{markdown(PATIENT)}&amp;x", encoding="utf-8"),
    "page.html": lambda path: path.write_text(
        html.escape(PATIENT).encode("ascii", "xmlcharrefreplace").decode()
    ),
    "model.onnx": lambda path: path.write_bytes(b"\0\xff" + PATIENT.encode() + b"\xff\0"),
    "numbers.txt": lambda path: path.write_text("patient 123456-2"),
    "words.npy": lambda path: np.save(path, np.array(["of 123456"])),
    "names.npy": lambda path: np.save(path, np.array(["no", PATIENT], ">U9")),
    # Beyond the beginning, which suffices for numbers.
    "long.npy": lambda path: np.save(path, np.array(["no"] * 40_000 + [PATIENT])),
    "rows.npz": lambda path: np.savez_compressed(path, a=np.array([(PATIENT, 3)], "U9,i4")),
    "objects.npy": lambda path: np.save(path, np.array([PATIENT, None]), allow_pickle=True),
    "image.png": png,
    "figure.pdf": figure,
    "boxes.parquet": parquet,
    "archive.zip": archive,
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_patient_is_found_in_any_encoding(tmp_path, name):
    WRITERS[name](tmp_path / name)
    findings = list(scan(tmp_path, [Names("a patient id", [PATIENT, "123456"])]))
    assert {finding.kind for finding in findings} == {"a patient id"}
    if name == "archive.zip":
        assert findings == [Finding(name, "inner.zip/a/note.csv, line 1", "a patient id")]


@pytest.mark.parametrize("name", [PATIENT, "Müller, Zoë"])
def test_a_name_is_found_however_its_accents_are_written(tmp_path, name):
    forms = [unicodedata.normalize(form, name) for form in ("NFC", "NFD")]
    assert forms[0] != forms[1]
    for written, known in product(forms, forms):
        (tmp_path / "card.md").write_text(f"a scan of {written}.", encoding="utf-8")
        assert len(list(scan(tmp_path, [Names("a name", [known])]))) == 1


@pytest.mark.parametrize("word", ["office_flow-7", "Łódź-7", "a(b)\\c-77", "first fish-7"])
def test_a_word_in_a_figure_is_found_whatever_its_letters_are(tmp_path, word):
    """Ligatures and letters beyond Latin-1 are in a second font of Matplotlib's PDF."""
    figure(tmp_path / "figure.pdf", word)
    assert len(list(scan(tmp_path, [Names("a name", [word])]))) == 1


def test_the_properties_and_attachments_of_a_pdf_are_searched_and_its_pixels_are_not(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    text = b" write to a@b.de "
    pixels[20].reshape(-1)[: len(text)] = np.frombuffer(text, np.uint8)
    with style.house():
        drawing = style.new(1, 4)
        drawing.figimage(pixels)
        style.save(drawing, tmp_path / "pixels.pdf")
    with PdfWriter(clone_from=tmp_path / "pixels.pdf") as writer:
        writer.add_metadata({"/Author": PATIENT})
        writer.add_attachment("note.csv", b"of 123456")
        writer.write(tmp_path / "document.pdf")
    findings = list(scan(tmp_path, [Names("a name", [PATIENT]), Names("an id", ["123456"])]))
    assert [finding.kind for finding in findings] == ["a name", "an id"]


def with_address(length: int) -> np.ndarray:
    """Return bytes that are no text, with an address among them."""
    text = b" write to a@b.de "
    values = np.random.default_rng(0).integers(128, 256, length, np.uint8)
    values[8 : 8 + len(text)] = np.frombuffer(text, np.uint8)
    return values


@pytest.mark.parametrize("name", ["pixels.npy", "model.safetensors", "image.png", "words.npy"])
def test_numbers_that_look_like_an_address_are_no_finding(tmp_path, name):
    values = with_address(640)
    if name == "model.safetensors":
        save_file({"weight": values.view(np.float32)}, tmp_path / name, {"of": PATIENT})
    elif name == "image.png":
        png(tmp_path / name)
        content, chunk = (tmp_path / name).read_bytes(), b"IDAT" + values.tobytes()
        pixels = struct.pack(">I", len(values)) + chunk + struct.pack(">I", zlib.crc32(chunk))
        (tmp_path / name).write_bytes(content[:-12] + pixels + content[-12:])  # before IEND
    else:
        words = np.array(["a@b.de"])
        np.save(tmp_path / name, words if name == "words.npy" else values)
    assert (b"a@b.de" in (tmp_path / name).read_bytes()) == (name != "words.npy")
    kinds = {finding.kind for finding in scan(tmp_path, [Names("a name", [PATIENT])])}
    expected = {"pixels.npy": set(), "words.npy": {"an e-mail address"}}
    assert kinds == expected.get(name, {"a name"})


@pytest.mark.parametrize(
    "name",
    ["boxes.parquet", "archive.zip", "packed.csv.gz", "image.png", "figure.pdf", "long.npy"],
)
def test_a_damaged_file_is_refused_and_not_taken_for_one_without_names(tmp_path, name):
    WRITERS[name](tmp_path / name)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(MedscaleError, match=rf"{name} cannot be searched"):
        list(scan(tmp_path))


def document(path: Path) -> None:
    """Write a PDF with a name in its properties, which are object 1."""
    with PdfWriter() as writer:
        writer.add_blank_page(10, 10)
        writer.add_metadata({"/Author": "of PAT-77"})
        writer.write(path)


def test_an_object_of_a_pdf_that_replaced_a_free_one_is_searched(tmp_path):
    """Such an object has generation 1."""
    document(tmp_path / "x.pdf")
    content = (tmp_path / "x.pdf").read_bytes()
    entry = content.index(b" 00000 n")
    content = content[:entry] + b" 00001 n" + content[entry + 8 :]
    content = content.replace(b"1 0 obj", b"1 1 obj").replace(b"/Info 1 0 R", b"/Info 1 1 R")
    (tmp_path / "x.pdf").write_bytes(content)
    findings = list(scan(tmp_path, [Names("a name", ["PAT-77"])]))
    assert findings == [Finding("x.pdf", "object 1", "a name")]


def test_a_pdf_with_a_number_in_place_of_its_trailer_is_refused(tmp_path):
    document(tmp_path / "x.pdf")
    start, end = (tmp_path / "x.pdf").read_bytes().split(b"trailer\n")
    (tmp_path / "x.pdf").write_bytes(start + b"trailer\n7 " + end)
    with pytest.raises(MedscaleError, match=r"x\.pdf cannot be searched"):
        list(scan(tmp_path))
