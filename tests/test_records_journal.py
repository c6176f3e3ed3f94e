"""A run's lines: appended, read again, repaired when torn, refused when damaged, and kept when the disk is full."""

from __future__ import annotations

import math
import subprocess
import sys
import tempfile
import types
import typing
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import headway.records
from headway.records import (
    BundleError,
    HeadwayError,
    InputError,
    Journal,
    Line,
    Record,
    RecordError,
    StageTime,
    from_json,
    read_journal,
    to_json,
)

KINDS = sorted(
    (kind for kind in vars(headway.records).values() if isinstance(kind, type) and issubclass(kind, Record) and kind is not Record), key=str
)
LINES = typing.get_args(Line)


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Values of a field's type."""
    simple = {
        str: st.text(max_size=5),
        bool: st.booleans(),
        int: st.integers(-(2**53), 2**53),
        float: st.floats(allow_nan=False, allow_infinity=False),
        types.NoneType: st.none(),
        msgspec.UnsetType: st.just(msgspec.UNSET),
        object: st.one_of(st.text(max_size=3), st.integers(0, 9), st.lists(st.text(max_size=3), max_size=2)),
    }
    if kind in simple:
        return simple[kind]
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return st.one_of([values(one) for one in inside])
    if origin is tuple:
        return st.lists(st.deferred(lambda: values(inside[0])), max_size=2).map(tuple)
    if origin is dict:
        return st.dictionaries(st.text(max_size=4), values(inside[1]), max_size=2)
    return records(kind)


@lru_cache
def records(kind: type[Record]) -> st.SearchStrategy[Record]:
    """Records of one kind with any content; a kind may hold more of itself."""
    types_of = typing.get_type_hints(kind)
    return st.builds(kind, **{field.name: values(types_of[field.name]) for field in msgspec.structs.fields(kind)})


def stage(number: int) -> StageTime:
    return StageTime(stage=f"stage {number}", duration_s=float(number))


def filled(folder: Path, count: int = 3) -> Journal:
    journal = Journal(folder)
    for number in range(count):
        journal.append(stage(number))
    return journal


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@settings(max_examples=15)
@given(data=st.data())
def test_every_record_survives_json(kind: type[Record], data: st.DataObject) -> None:
    record = data.draw(records(kind))
    text = to_json(record)
    assert b"\n" not in text
    assert from_json(text, kind) == record


@settings(max_examples=15)
@given(st.lists(st.one_of([records(kind) for kind in LINES]), max_size=4))
def test_every_line_of_a_run_comes_back_in_order(lines: list[Record]) -> None:
    with tempfile.TemporaryDirectory() as name:
        journal = Journal(Path(name))
        for line in lines:
            journal.append(line)
        assert list(Journal(Path(name))) == lines == list(journal)


def test_json_of_another_kind_is_refused() -> None:
    with pytest.raises(RecordError, match="here: must be a valid StageTime"):
        from_json('{"record": "StageTime", "stage": 3}', StageTime, "here")
    with pytest.raises(RecordError, match="valid StageTime"):
        from_json(b"\xff", StageTime)
    with pytest.raises(RecordError, match="valid StageTime"):
        from_json('{"record": "StageTime", "stage": "a", "duration_s": 1, "more": 1}', StageTime)


def test_appending_goes_on_where_the_file_ends(tmp_path: Path) -> None:
    filled(tmp_path / "run", 2)
    again = Journal(tmp_path / "run")
    again.append(stage(2))
    assert again.of(StageTime) == [stage(0), stage(1), stage(2)] == read_journal(tmp_path / "run")
    assert again.last(StageTime) == stage(2)
    assert again.last(headway.records.Choice) is None
    assert len(again) == 3


def test_a_torn_last_line_is_repaired(tmp_path: Path) -> None:
    filled(tmp_path)
    file = tmp_path / "records.jsonl"
    whole = file.read_bytes()
    for cut in range(1, len(whole) + 1):
        torn = whole[:-cut]
        file.write_bytes(torn)
        kept = torn[: torn.rfind(b"\n") + 1]
        read = read_journal(tmp_path)
        assert file.read_bytes() == torn, "reading touches nothing"
        journal = Journal(tmp_path)
        assert file.read_bytes() == kept
        assert list(journal) == read == [stage(number) for number in range(max(0, kept.count(b"\n") - 1))]
        journal.append(stage(9))
        assert read_journal(tmp_path) == [*read, stage(9)]


@pytest.mark.parametrize("damage", [b"{}", b"", b"\xff\xfe", b'{"record": "Nothing"}', b'{"record": "StageTime", "stage": "a"}', b"null"])
def test_a_damaged_line_in_the_middle_is_told_with_its_number(tmp_path: Path, damage: bytes) -> None:
    filled(tmp_path)
    file = tmp_path / "records.jsonl"
    lines = file.read_bytes().split(b"\n")
    lines[2] = damage
    file.write_bytes(b"\n".join(lines))
    for read in (Journal, read_journal):
        with pytest.raises(BundleError, match=r"records\.jsonl:3: must be a valid record"):
            read(tmp_path)
    assert file.read_bytes() == b"\n".join(lines)


@pytest.mark.parametrize(
    ("head", "told"), [(b'{"headway_records": 2}', "format 1, got 2"), (b'{"a": 1}', "not a run"), (b"PK\x03", "not a run")]
)
def test_another_format_is_refused(tmp_path: Path, head: bytes, told: str) -> None:
    (tmp_path / "records.jsonl").write_bytes(head + b"\n")
    with pytest.raises(BundleError, match=told):
        Journal(tmp_path)


def test_a_folder_without_records_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="must be a run folder"):
        read_journal(tmp_path)
    (tmp_path / "records.jsonl").mkdir()
    with pytest.raises(BundleError, match="a file that can be read"):
        Journal(tmp_path)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    journal = Journal(tmp_path / "file" / "run")
    with pytest.raises(InputError, match="must be writable"):
        journal.append(stage(0))
    assert len(journal) == 0
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_number_that_json_does_not_know_is_refused_before_it_is_written(tmp_path: Path, number: float) -> None:
    journal = filled(tmp_path)
    with pytest.raises(HeadwayError, match="StageTime"):
        journal.append(StageTime(stage="a", duration_s=number))
    assert read_journal(tmp_path) == list(journal) == [stage(0), stage(1), stage(2)]


FULL_DISK = """
import resource, sys
from pathlib import Path
from headway.records import InputError, Journal, StageTime

folder, room = Path(sys.argv[1]), int(sys.argv[2])
journal = Journal(folder)
resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
failures = 0
for number in range(12):
    try:
        journal.append(StageTime(stage=f"stage {number}", duration_s=float(number)))
    except InputError as error:
        assert "must be writable" in str(error) and "Free space" in str(error), error
        failures += 1
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
journal.append(StageTime(stage="after", duration_s=0.0))
print(failures, len(journal))
"""


@pytest.mark.parametrize("room", [10, 100, 333, 500])
def test_a_full_disk_keeps_every_earlier_line(tmp_path: Path, room: int) -> None:
    source = str(Path(headway.records.__file__).parents[2])
    ended = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path), str(room)], env={"PYTHONPATH": source}, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    failures, kept = map(int, ended.stdout.split())
    assert failures > 0
    assert failures + kept == 13
    lines = read_journal(tmp_path)
    assert lines == [*(stage(number) for number in range(kept - 1)), StageTime(stage="after", duration_s=0.0)]


def test_only_one_process_writes_to_a_run(tmp_path: Path) -> None:
    script = "import sys; from pathlib import Path; from headway.records import Journal; Journal(Path(sys.argv[1]), alone=True)"
    journal = Journal(tmp_path, alone=True)
    second = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False)
    assert second.returncode != 0 and "another run writes" in second.stderr
    journal.release()
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False).returncode == 0
