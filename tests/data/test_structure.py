"""Files whose structure would take long to decode are refused before they are decoded."""

from __future__ import annotations

import io
import time

import numpy as np
import pytest
from PIL import Image

from hostile import damaged, random_files
from medscale.data.decoding import structure
from medscale.data.images import Unreadable, decode, kind_of
from service_process import picture
from slow_images import in_dicom, in_tiff, many_parts, progressive


def refusal(data: bytes) -> str:
    kind = kind_of(data)
    assert kind is not None
    with pytest.raises(Unreadable) as caught:
        structure.check(data, kind)
    return caught.value.detail


@pytest.mark.parametrize("wrap", [lambda jpeg: jpeg, lambda jpeg: in_dicom(jpeg, 64)])
def test_a_jpeg_of_many_scans_is_refused_and_one_of_few_is_decoded(wrap) -> None:  # type: ignore[no-untyped-def]
    assert "more than 50 scans" in refusal(wrap(progressive(64, 51)))
    with pytest.raises(Unreadable, match="50 scans"):
        decode(wrap(progressive(64, 400)))
    assert decode(wrap(progressive(64, 50))).shape == (64, 64, 3)


def test_a_jpeg_of_many_scans_in_a_tiff_is_refused() -> None:
    assert "more than 50 scans" in refusal(in_tiff(progressive(64, 51), 64))
    assert decode(in_tiff(progressive(64, 50), 64)).shape == (64, 64, 3)


def test_scans_are_counted_where_libjpeg_finds_them() -> None:
    few, start = progressive(64, 10), structure.START_OF_SCAN
    trailing = few + start * 100  # after the end mark
    comment = few[:2] + b"\xff\xfe\x01\x02" + start * 128 + few[2:]  # within a segment
    for data in (trailing, comment):
        structure.check(data, "jpeg")
        assert decode(data).shape == (64, 64, 3)
    many = progressive(64, 60)
    filled = many.replace(start, b"\xff\xff" + start)  # filling bytes before markers
    hidden = many[:2] + b"\xff\x01" + many[2:]  # a marker without a length
    for data in (filled, hidden):
        assert "50 scans" in refusal(data)


@pytest.mark.parametrize("name", many_parts(1))
def test_a_file_of_many_parts_is_refused_soon_and_one_of_few_is_decoded(name: str) -> None:
    hostile = many_parts(40_000)[name]
    begin = time.process_time()
    assert "more than" in refusal(hostile)
    assert time.process_time() - begin < 1
    assert decode(many_parts(100)[name]).ndim == 3


def test_whole_images_pass() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (900, 900, 3), np.uint8)
    for kind in ("JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"):
        file = io.BytesIO()
        Image.fromarray(noise).save(file, kind)
        structure.check(file.getvalue(), kind.lower())
    frames = [Image.fromarray(np.full((8, 8), n % 200, np.uint8)) for n in range(1500)]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    structure.check(file.getvalue(), "gif")


def test_damage_is_left_to_the_decoders() -> None:
    files = [*damaged().values(), *random_files(140)]
    files += [data[: len(data) // 2] for data in many_parts(50).values()]
    files += [picture()[:n] for n in (3, 4, 5, 20)]
    for data in files:
        if (kind := kind_of(data)) is not None:
            structure.check(data, kind)  # raises nothing


def test_samples_of_16_bits_are_scaled_as_by_division() -> None:
    from medscale.data.decoding.formats import to_uint8

    for bits, dtype in ((1, np.uint8), (4, np.uint8), (12, np.uint16), (16, np.uint16)):
        highest = 2**bits - 1
        samples = np.arange(highest + 1, dtype=dtype)
        expected = (samples.astype(np.int64) * 255 + highest // 2) // highest
        np.testing.assert_array_equal(to_uint8(samples, bits), expected)
