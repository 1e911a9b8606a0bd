"""Look-up tables of DICOM images: modality and VOI tables, and palettes.

pydicom 3.0 computes a position in a table in the type of the table's entries or of the pixels,
so that it wraps: above 255 in a table of 8-bit entries, for instance. Here it has 64 bits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydicom.dataset import Dataset, FileDataset
from pydicom.pixels import apply_color_lut, apply_modality_lut

from medscale.data.decoding.formats import UNREADABLE, Unreadable

COLOURS = ("Red", "Green", "Blue")
SIGN = 2**15  # 16-bit numbers from here on are negative if their type has a sign


def modality(stored: np.ndarray, dataset: FileDataset) -> np.ndarray:
    """Apply the modality table or the rescale to stored values (PS3.3, C.11.1).

    A rescale without slope or intercept, or with an empty one, is not applied.
    """
    if tables := dataset.get("ModalityLUTSequence"):
        return by_table(stored, tables[0], dataset)[0]
    numbers = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
    return stored if None in numbers else apply_modality_lut(stored, dataset)


def by_table(values: np.ndarray, item: Dataset, dataset: FileDataset) -> tuple[np.ndarray, int]:
    """Apply a modality or VOI table to pixel values (PS3.3, C.11.1 and C.11.2).

    Raises Unreadable for a table that lacks entries, or whose entries have more than 16 bits.

    Args:
        values: stored values for a modality table, values after the rescale for a VOI table.
        item: an item of ModalityLUTSequence or VOILUTSequence.
        dataset: the file's dataset.

    Returns:
        The table's entry for each value, and the largest number that an entry can be.
    """
    count, first, bits = _descriptor(item.LUTDescriptor)
    # The number has a sign if the values have one, but readers take it from the stored values.
    if first >= SIGN and first > values.max() and values.min() < 0:
        first -= 2 * SIGN
    table = _entries(item.LUTData, count, dataset)
    return _look_up(values, table, first), _highest(table, bits)


def palette(stored: np.ndarray, dataset: FileDataset) -> tuple[np.ndarray, int]:
    """Apply the palette to stored values, shape H,W (PS3.3, C.7.6.3.1.5 and C.7.6.3.1.6).

    Returns:
        Colours, shape H,W,3, and the largest number that a colour can be.
    """
    count, first, bits = _descriptor(dataset.RedPaletteColorLookupTableDescriptor)
    if "RedPaletteColorLookupTableData" in dataset:
        columns = [
            _entries(dataset[f"{colour}PaletteColorLookupTableData"].value, count, dataset)
            for colour in COLOURS
        ]
        table = np.stack(columns, axis=1)
    else:
        if bits <= 8 and count > 256:
            raise Unreadable(
                UNREADABLE, f"a DICOM image with a segmented 8-bit palette of {count} colours"
            )
        # pydicom expands the segments.
        table = apply_color_lut(np.arange(first, first + count), dataset)[:, :3]
    return _look_up(stored, table, first), _highest(table, bits)


def _descriptor(numbers: Sequence[int]) -> tuple[int, int, int]:
    """Read a LUT descriptor (PS3.3, C.11.1.1.1).

    Returns:
        The number of entries of the table, the pixel value that its first entry is for, and the
        number of bits of an entry.
    """
    count, first, bits = map(int, numbers)
    if not 1 <= bits <= 16:
        raise Unreadable(UNREADABLE, f"a DICOM image with a table of {bits}-bit entries")
    return count % 2**16 or 2**16, first, bits


def _entries(data: bytes | int | Sequence[int], count: int, dataset: FileDataset) -> np.ndarray:
    """Return the entries of a table, which are bytes (of an even number) or words."""
    if not isinstance(data, bytes):
        entries = np.atleast_1d(np.asarray(data, np.int64)) % 2**16
    elif len(data) - count in (0, 1) and len(data) < 2 * count:
        entries = np.frombuffer(data, np.uint8)
    else:
        order = "<" if dataset.file_meta.TransferSyntaxUID.is_little_endian else ">"
        entries = np.frombuffer(data[: len(data) // 2 * 2], f"{order}u2")
    if len(entries) < count:
        raise Unreadable(UNREADABLE, f"a DICOM table with {len(entries)} of {count} entries")
    return entries[:count]


def _highest(table: np.ndarray, bits: int) -> int:
    """Return the largest number of a table's type; some tables exceed the bits that they name."""
    highest = 2 ** (8 if table.dtype == np.uint8 else bits) - 1
    return highest if table.max() <= highest else 2**16 - 1


def _look_up(values: np.ndarray, table: np.ndarray, first: int) -> np.ndarray:
    """Return the table's entry for each pixel value.

    A value below ``first`` has the first entry, and one beyond the table has the last entry.
    """
    return table[np.clip(values.astype(np.int64) - first, 0, len(table) - 1)]
