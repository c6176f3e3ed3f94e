"""The frontier's PNG, from every form that records come in."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from headway.records import BundleError, InputError, RecordError
from headway.report.picture import frontier_png
from test_report_example import started, whole_run, write


def test_folder_file_and_records_give_the_same_picture(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", whole_run())
    other = tmp_path / "vision.jsonl"
    other.write_text('{"environment": {"cpu": "x"}}\n' + (folder / "records.jsonl").read_text("utf-8"), "utf-8")
    pictures = [frontier_png(records, tmp_path / f"{i}.png").read_bytes() for i, records in enumerate((folder, other, whole_run()))]
    assert pictures[0] == pictures[1] == pictures[2]
    with Image.open(tmp_path / "0.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > 1600 and picture.height > 700
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 50


def test_nothing_measured_is_no_picture(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="must hold a candidate"):
        frontier_png([started()], tmp_path / "f.png")
    assert not (tmp_path / "f.png").exists()


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text('{"headway_records":1}\n{"record":"Variant","oops":1}\n')
    with pytest.raises(RecordError, match=r"x\.jsonl:2"):
        frontier_png(file, tmp_path / "f.png")


def test_a_place_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must be writable"):
        frontier_png(whole_run(), tmp_path / "missing" / "f.png")
