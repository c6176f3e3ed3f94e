"""A load shared by several processes: no request is lost or sent twice, the records are woven together rightly, and the files of a run."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.api import load as load_stage
from headway.api.load_bundle import BundleTarget
from headway.api.load_files import check_writable, write_distribution, write_raw
from headway.api.load_http import HttpTarget
from headway.api.load_session import LoadAsked, Loading
from headway.api.load_target import Ran
from headway.load import RawLoad
from headway.load.generator import FAILED, LOST, OK, REFUSED
from headway.load.several import merged, run_http_by
from headway.records import ConfigError, InputError, MeasurementError
from paper_target import PaperTarget
from wrong_server import answering


@given(st.integers(1, 5), st.integers(0, 40))
def test_records_are_woven_back_into_the_order_of_the_whole(senders: int, count: int) -> None:
    due_s = np.arange(count, dtype=np.float64)
    parts = [
        RawLoad(
            due_s[at::senders],
            due_s[at::senders] + 0.1,
            due_s[at::senders] + 0.2,
            np.full(len(due_s[at::senders]), at % 3, np.int8),
            10.0 + at,
        )
        for at in range(senders)
    ]
    whole = merged(parts, count)
    assert whole.due_s.tolist() == due_s.tolist() and np.allclose(whole.done_s - whole.sent_s, 0.1)
    assert whole.status.tolist() == [number % senders % 3 for number in range(count)]
    assert whole.end_s == 10.0 + senders - 1


def test_two_processes_send_every_request_once() -> None:
    with answering() as url:
        target = HttpTarget(url, "")
        target.senders = 2
        requests = [{"x": np.full((1, 4), float(number), np.float32)} for number in range(5)]
        raw = target.run(requests, np.linspace(0.0, 0.5, 41), drain_s=30.0).raw
        alone = target.run(requests, np.zeros(5), most_in_flight=1, keep_answers=True)
    assert len(raw.due_s) == 41 and (raw.status == OK).all()
    assert (raw.done_s > raw.sent_s).all() and (raw.sent_s >= raw.due_s).all()
    assert len(alone.answers) == 5, "answers are kept by one process alone"


def test_what_a_process_cannot_do_is_said_here() -> None:
    options: dict[str, Any] = {"drain_s": 1.0, "most_connections": 4}
    with pytest.raises(MeasurementError, match=r"a server must listen at 127\.0\.0\.1:9"):
        run_http_by(2, "http://127.0.0.1:9/", [b"x"], [{}], np.zeros(2), **options)
    for senders in (0, 99):
        with pytest.raises(ConfigError, match="--senders"):
            run_http_by(senders, "http://127.0.0.1:9/", [b"x"], [{}], np.zeros(2), **options)


def test_a_target_in_this_process_has_one_sender() -> None:
    with pytest.raises(ConfigError, match="leave it out"):
        Loading(LoadAsked(target="paper", senders=2), PaperTarget())
    assert BundleTarget.kind == "in-process"


class Slow(PaperTarget):
    """Over HTTP, as it were: with one sender, that one is late."""

    kind = "http"

    def run(self, *arguments: Any, **more: Any) -> Ran:
        ran = super().run(*arguments, **more)
        late_s = 0.5 if self.senders == 1 else 0.0
        raw = ran.raw
        return ran._replace(raw=RawLoad(raw.due_s, raw.due_s + late_s, raw.done_s + late_s, raw.status, raw.end_s + late_s))


@pytest.mark.parametrize(("senders", "verdict", "used"), [(None, "held", 2), (1, "generator-bound", 1), (2, "held", 2)])
def test_a_second_sender_is_added_when_one_was_the_bottleneck_and_that_is_said(
    senders: int | None, verdict: str, used: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = Slow()

    @contextlib.contextmanager
    def opened(asked: LoadAsked) -> Iterator[Loading]:
        yield Loading(asked, target)

    monkeypatch.setattr(load_stage, "loading", opened)
    found = load_stage.load(LoadAsked(target="http://paper", slo="p99<=1s", senders=senders), rate_per_s=50.0, duration_s=20.0)
    assert found.point.verdict == verdict and target.senders == used
    assert any("second run, with two" in note for note in found.notes) == (senders is None)


def test_the_raw_record_is_one_line_a_request(tmp_path: Path) -> None:
    status = np.array([OK, REFUSED, FAILED, LOST], np.int8)
    raw = RawLoad(np.arange(4.0), np.arange(4.0) + 0.5, np.array([1.0, 2.0, 3.0, np.nan]), status, 9.0)
    write_raw(tmp_path / "raw.jsonl", raw)
    lines = [json.loads(line) for line in (tmp_path / "raw.jsonl").read_text().splitlines()]
    assert [line["status"] for line in lines] == ["answered", "refused", "failed", "lost"]
    assert lines[1] == {"number": 1, "due_s": 1.0, "sent_s": 1.5, "done_s": 2.0, "status": "refused"}
    assert lines[3]["done_s"] is None
    for bad in (tmp_path, tmp_path / "no" / "raw.jsonl"):
        with pytest.raises(InputError, match="writable"):
            check_writable(bad)


@given(st.lists(st.floats(1e-4, 10.0), min_size=1, max_size=400), st.integers(0, 3))
def test_the_distribution_is_that_of_the_latencies(tmp_path_factory: pytest.TempPathFactory, latencies: list[float], refused: int) -> None:
    """Every line holds what its share of the answered requests took at most, the last one all of them."""
    file = tmp_path_factory.mktemp("hdr") / "d.hgrm"
    due_s = np.arange(len(latencies) + refused, dtype=np.float64)
    done_s = due_s + np.array([*latencies, *[99.0] * refused])
    status = np.array([OK] * len(latencies) + [REFUSED] * refused, np.int8)
    write_distribution(file, RawLoad(due_s, due_s, done_s, status, float(done_s.max())))
    lines = file.read_text().splitlines()
    assert lines[0].split() == ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"] and lines[1] == ""
    rows = [[float(word) for word in line.split()] for line in lines[2:] if not line.startswith("#")]
    ordered_ms = sorted(1e3 * latency for latency in latencies)
    for value, share, count, inverse in rows:
        assert value == pytest.approx(ordered_ms[int(count) - 1], abs=6e-4)
        assert share * len(latencies) <= count + 1e-6 and (count == 1 or share * len(latencies) > count - 1 - 1e-6)
        assert inverse == pytest.approx(1 / (1 - share), rel=0.01, abs=0.01) if share < 1 else inverse == float("inf")
    assert rows[-1][1:3] == [1.0, len(latencies)]
    assert [row[1] for row in rows] == sorted(row[1] for row in rows)
    assert f"Total count    = {len(latencies):12d}" in lines[-1]


def test_the_steps_of_the_distribution_are_halved_towards_the_end(tmp_path: Path) -> None:
    """The shares that HdrHistogram prints: tenths up to a half, twentieths up to three quarters, and so on."""
    due_s = np.arange(1000.0)
    write_distribution(tmp_path / "d", RawLoad(due_s, due_s, due_s + 1e-3 * (due_s + 1), np.zeros(1000, np.int8), 2000.0))
    shares = [float(line.split()[1]) for line in (tmp_path / "d").read_text().splitlines()[2:14]]
    assert shares == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.775])
