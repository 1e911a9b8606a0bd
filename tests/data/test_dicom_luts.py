"""Look-up tables of DICOM images map each value to the entry that the standard says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from dicom_images import GREY, dicom
from medscale.data.images import Unreadable, decode

DEEP = np.linspace(0, 4095, 12 * 16).reshape(12, 16).astype(np.uint16)
SIGNED = np.linspace(-32768, 32767, 12 * 16).reshape(12, 16).astype(np.int16)
FALLING = np.arange(4095, -1, -1, dtype=np.uint16)
ALL_WORDS = np.arange(2**16 - 1, -1, -1, dtype=np.uint16)
COLOURS = ("Red", "Green", "Blue")


def item(table: np.ndarray, first: int, bits: int, representation: str = "OW") -> Dataset:
    """An item of a sequence of look-up tables."""
    dataset = Dataset()
    vr = "SS" if first < 0 else "US"
    dataset.add(DataElement("LUTDescriptor", vr, [len(table) % 2**16, first, bits]))
    data = table.tobytes() if representation == "OW" else table.tolist()
    dataset.add(DataElement("LUTData", representation, data))
    return dataset


def entries(values: np.ndarray, table: np.ndarray, first: int) -> np.ndarray:
    """The entry for each value, as numbers with a point."""
    return table[np.clip(values.astype(int) - first, 0, len(table) - 1)].astype(float)


def check_grey(data: bytes, expected: np.ndarray) -> None:
    """Check a file's grey values against the expected ones of 0 to 255."""
    assert np.abs(decode(data)[..., 0] - expected).max() <= 0.51


def spread(values: np.ndarray) -> np.ndarray:
    """Scale the range of values to 0 to 255."""
    return (values - values.min()) * (255 / np.ptp(values))


@pytest.mark.parametrize("representation", ["OW", "US"])
def test_a_voi_table_of_many_8_bit_entries(representation: str) -> None:
    table = (np.arange(4096) // 16).astype(np.uint16)
    data = dicom(DEEP, BitsStored=12, VOILUTSequence=[item(table, 0, 8, representation)])
    check_grey(data, entries(DEEP, table, 0))


def test_entries_of_a_voi_table_may_be_bytes() -> None:
    table = np.arange(255, -1, -1, dtype=np.uint8)
    check_grey(dicom(GREY, VOILUTSequence=[item(table, 0, 8)]), 255.0 - GREY)


def test_values_beyond_a_voi_table_have_its_last_entry() -> None:
    rescale = {"RescaleSlope": "4", "RescaleIntercept": "0"}
    data = dicom(DEEP * 16, VOILUTSequence=[item(ALL_WORDS, 0, 16)], **rescale)
    check_grey(data, entries(DEEP * 16.0 * 4, ALL_WORDS, 0) / 257)


@pytest.mark.parametrize("name", ["VOILUTSequence", "ModalityLUTSequence"])
def test_a_table_covers_all_signed_values(name: str) -> None:
    check_grey(dicom(SIGNED, **{name: [item(ALL_WORDS, -32768, 16)]}), spread(-1.0 * SIGNED))


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_a_modality_table_of_any_bits(bits: int) -> None:
    table = FALLING >> max(0, 12 - bits)
    data = dicom(DEEP, BitsStored=12, ModalityLUTSequence=[item(table, 0, bits)])
    check_grey(data, spread(entries(DEEP, table, 0)))


@pytest.mark.parametrize("syntax", [ExplicitVRBigEndian, ImplicitVRLittleEndian])
def test_the_first_value_of_a_voi_table_may_be_negative(syntax: str) -> None:
    # Stored values have no sign, so that readers take -1024 as 64512.
    about: dict[str, Any] = {"BitsStored": 12, "RescaleSlope": "1", "RescaleIntercept": "-1024"}
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    table, stored = FALLING.astype(f"{order}u2"), DEEP.astype(f"{order}u2")
    about["VOILUTSequence"] = [item(table, 2**16 - 1024, 12)]
    check_grey(dicom(stored, syntax=syntax, **about), (4095.0 - DEEP) * 255 / 4095)


@pytest.mark.parametrize("missing", ["", None])
def test_a_rescale_without_numbers_is_none(missing: str | None) -> None:
    window = {"WindowCenter": "2000", "WindowWidth": "1001"}
    plain = decode(dicom(DEEP, BitsStored=12, **window))
    rescale = {"RescaleSlope": missing, "RescaleIntercept": missing}
    assert np.array_equal(decode(dicom(DEEP, BitsStored=12, **window, **rescale)), plain)


def palette(table: np.ndarray, bits: int, first: int) -> dict[str, Any]:
    """The headers of a palette of colours, shape N,3."""
    about: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for column, name in enumerate(COLOURS):
        data = np.ascontiguousarray(table[:, column]).tobytes()
        about[f"{name}PaletteColorLookupTableDescriptor"] = [len(table) % 2**16, first, bits]
        about[f"{name}PaletteColorLookupTableData"] = data + bytes(len(data) % 2)
    return about


@pytest.mark.parametrize(
    ("count", "first", "stored"),
    [(4096, 0, DEEP), (100, 1000, DEEP), (2**16, 0, DEEP * 16), (255, 0, GREY), (200, 30, GREY)],
)
@pytest.mark.parametrize("bits", [8, 16])
def test_a_palette_of_any_size(bits: int, count: int, first: int, stored: np.ndarray) -> None:
    table = np.random.default_rng(1).integers(0, 2**bits, (count, 3))
    table = table.astype(np.uint8 if bits == 8 else np.uint16)
    pixels = decode(dicom(stored, **palette(table, bits, first)))
    places = np.clip(stored.astype(int) - first, 0, count - 1)
    assert np.abs(pixels - table[places] / (1 if bits == 8 else 257)).max() <= 0.51


@pytest.mark.parametrize("factor", [1, 256])
def test_8_bit_colours_of_a_palette_may_be_words(factor: int) -> None:
    table = np.random.default_rng(2).integers(0, 256, (256, 3)).astype(np.uint16)
    pixels = decode(dicom(GREY, **palette(table * np.uint16(factor), 8, 0)))
    assert np.abs(pixels - table[GREY].astype(float)).max() <= 1


def test_a_segmented_palette() -> None:
    segments = np.array([0, 2, 0, 65535, 1, 254, 0], np.uint16)  # two entries, then a line
    about: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name in COLOURS:
        about[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        about[f"Segmented{name}PaletteColorLookupTableData"] = segments.tobytes()
    table = np.concatenate([[0, 65535], np.linspace(65535, 0, 255)[1:]]) / 257
    check_grey(dicom(GREY, **about), table[GREY])


def test_a_table_without_its_entries_is_refused() -> None:
    short = item(FALLING[:100], 0, 12)
    short.LUTDescriptor = [4096, 0, 12]
    with pytest.raises(Unreadable, match="100 of 4096 entries"):
        decode(dicom(DEEP, BitsStored=12, VOILUTSequence=[short]))
