"""Files are whole or absent."""

import pytest

from medscale.base.errors import MedscaleError
from medscale.base.files import atomic, read_json, write_json


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a.json"
    write_json(target, {"x": 1})

    def fail():
        with atomic(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        fail()
    assert read_json(target) == {"x": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_unwritable_and_unreadable_are_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MedscaleError, match="cannot be written"):
        write_json(tmp_path / "file" / "a.json", {})
    with pytest.raises(MedscaleError, match="does not exist"):
        read_json(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(MedscaleError, match="not valid JSON"):
        read_json(tmp_path / "bad.json")
