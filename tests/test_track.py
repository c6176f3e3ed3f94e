"""Trackers: what they wrote is read back; none of them can fail a run."""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path

import pytest

from headway.records import Capacity, ConfigError, Failure, LoadRun, MissingPackage, Record
from headway.track import Trackers, figures, notes, open_trackers, tracker_names
from test_report_example import CHOSEN, load_point, started, whole_run

# The trackers' libraries deprecate each other's and their own modules at import.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


class Recorder:
    """A tracker that keeps what it was given, or raises."""

    def __init__(self, *, fails: bool = False) -> None:
        self.seen: list[Record] = []
        self.calls = 0
        self.closed = False
        self.fails = fails

    def log(self, record: Record) -> None:
        self.calls += 1
        if self.fails:
            raise OSError("disk on fire")
        self.seen.append(record)

    def close(self) -> None:
        self.closed = True


def log_all(names: list[str], folder: Path) -> None:
    trackers = open_trackers(names, folder, {"slo": "p99<=20ms", "seed": 0})
    for line in whole_run():
        trackers.log(line)
    trackers.close()
    assert trackers.warnings == ()


def wandb_records(path: Path) -> list[object]:
    """The records of an offline .wandb file: a seven-byte header, then LevelDB log blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record as WandbRecord  # slow to import; only this test needs it

    data, at, parts, found = path.read_bytes(), 7, b"", []
    assert data.startswith(b":W&B")
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # full, last
            record = WandbRecord()
            record.ParseFromString(parts)
            found.append(record)
            parts = b""
    return found


def test_figures_of_a_load_run_stand_at_its_rate() -> None:
    run = LoadRun(candidate=CHOSEN, role="candidate", round=0, point=load_point(200.0, 500.0, 0.004))
    by_name = {figure.name: figure for figure in figures(run)}
    assert by_name["p99_s"].value == run.point.percentile(0.99).latency_s
    assert (by_name["p99_s"].axis, by_name["p99_s"].step) == ("offered_rate_per_s", 200.0)


def test_tags_hold_nothing_a_tracker_would_misread() -> None:
    tags = {figure.tag for line in whole_run() for figure in figures(line)} | {tag for line in whole_run() for tag, _ in notes(line)}
    assert len(tags) > 50
    assert all(set(tag) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.=-/") for tag in tags)


def test_not_a_number_is_not_logged() -> None:
    capacity = Capacity(candidate=CHOSEN, role="chosen", target="http", rate_per_s=float("nan"), low_per_s=0.0, high_per_s=1.0)
    assert figures(capacity) == ()


def test_a_failure_is_a_note_and_not_a_number() -> None:
    failure = Failure(stage="curve", variant="v", plan=None, reason="no kernel")
    assert figures(failure) == ()
    assert notes(failure) == (("failed/curve/v", "no kernel"),)


def test_a_failing_tracker_warns_once_and_the_others_go_on() -> None:
    bad, good = Recorder(fails=True), Recorder()
    trackers = Trackers({"bad": bad, "good": good})
    for line in whole_run()[:5]:
        trackers.log(line)
    trackers.close()
    assert bad.calls == 1
    assert len(good.seen) == 5
    assert good.closed
    assert len(trackers.warnings) == 1
    assert "bad" in trackers.warnings[0] and "disk on fire" in trackers.warnings[0]


def test_a_tracker_that_cannot_open_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("a file where the folder should be")
    trackers = open_trackers(["tensorboard"], tmp_path, {})
    trackers.log(started())
    trackers.close()
    assert trackers.names == ()
    assert len(trackers.warnings) == 1


def test_unknown_name_is_told_with_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'tensorboard'"):
        open_trackers(["tensorbord"], tmp_path, {})


@pytest.mark.parametrize("name", tracker_names())
def test_missing_package_names_the_extra(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, f"headway.track.trackers.{name}", raising=False)
    for module in [module for module in sys.modules if module.split(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingPackage, match=r"headway\[track\]"):
        open_trackers([name], tmp_path, {})


def test_tensorboard_reads_back(tmp_path: Path) -> None:
    log_all(["tensorboard"], tmp_path / "run")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "run" / "tensorboard" / "run"), size_guidance={"tensors": 0})
    events.Reload()
    tags = events.Tags()["tensors"]
    expected = {figure.tag for line in whole_run() for figure in figures(line)}
    assert expected <= set(tags)
    p99 = [
        figure for line in whole_run() for figure in figures(line) if figure.name == "p99_s" and figure.series.startswith("load/candidate")
    ]
    tag = p99[0].tag
    read = {(event.step, round(event.tensor_proto.float_val[0], 5)) for event in events.Tensors(tag)}
    assert read == {(round(figure.step), round(figure.value, 5)) for figure in p99 if figure.tag == tag}
    objective = events.Tensors("run/objective")[0].tensor_proto.string_val[0].decode()
    assert "p99<=20ms" in objective
    assert "rejected/screen/lite0_fold_dynamic" in tags


def test_wandb_reads_back_and_stays_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    log_all(["wandb"], tmp_path / "run")
    files = sorted((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 1
    records = wandb_records(files[0])
    config = {item.key: item.value_json for record in records for item in record.run.config.update}
    assert json.loads(config["slo"]) == "p99<=20ms"
    history: set[tuple[str, float]] = set()
    for record in records:
        for item in record.history.item:
            key = item.key or "/".join(item.nested_key)
            if key.endswith("/p99_s"):
                history.add((key, json.loads(item.value_json)))
    assert history == {(f.tag, f.value) for line in whole_run() for f in figures(line) if f.axis and f.name == "p99_s"}
    summary = {item.key or "/".join(item.nested_key): item.value_json for record in records for item in record.summary.update}
    assert json.loads(summary["choice"]).startswith("met: lite0/fold+static-u8s8")
    assert all(not record.run.host for record in records)
