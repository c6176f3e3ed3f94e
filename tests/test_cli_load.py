"""``headway load`` as its users start it: every mode on a real bundle, what it prints, what it refuses, and its exit codes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from rich.console import Console

import serving
from headway.api.load_find import FoundCapacity
from headway.cli import main
from headway.cli.commands import load as command
from headway.cli.load_output import print_audit, print_capacity, print_load, print_scenario, print_trial
from headway.load.audit import Audited
from headway.load.scenarios.contract import ScenarioResult
from headway.records import LoadPoint, Objective, Percentile, Trace, to_json
from headway.report.load_words import trust_words, verdict_words

BOUND = Objective(latency_s=0.02)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("load")
    serving.bundle(folder / "bundle", serving.entry(serving.affine_model(folder / "m.onnx")))
    return folder / "bundle"


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("COLUMNS", "200")
    yield


def run(arguments: list[object], capsys: pytest.CaptureFixture[str], code: int = 0) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["load", *map(str, arguments)])
    said = capsys.readouterr()
    assert (ended.value.code or 0) == code, said.err + said.out
    return said.out if code != 2 else said.err


def point(**more: Any) -> LoadPoint:
    percentiles = tuple(Percentile(q=q, latency_s=t, low_s=0.9 * t, high_s=1.1 * t) for q, t in ((0.5, 0.004), (0.99, 0.012)))
    made: dict[str, Any] = {
        "target": "http", "arrivals": "poisson", "offered_rate_per_s": 100.0, "achieved_rate_per_s": 99.0, "goodput_per_s": 98.0,
        "duration_s": 10.0, "sent": 990, "completed": 985, "failed": 2, "refused": 3, "percentiles": percentiles, "mean_s": 0.005,
        "naive_p99_s": 0.006, "lateness_p99_s": 0.0002, "in_flight_mean": 0.5, "little_ratio": 1.01, "miss_fraction": 0.0, "mean_batch": 0.0,
        "verdict": "held",
    }  # fmt: skip
    return LoadPoint(**{**made, **more})


def printed(function: Any, *arguments: Any) -> str:
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    function(console, *arguments)
    console.file.close()
    return console.export_text()


# --- one run


def test_a_bundle_is_loaded_in_this_process(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = json.loads(run([bundle, "--rate", 100, "--for", "0.5s", "--arrivals", "bursty:c2=8", "--seed", 3, "--json"], capsys))
    assert told["record"] == "LoadPoint" and told["target"] == "in-process"
    assert (told["arrivals"], told["seed"], told["offered_rate_per_s"]) == ("bursty:c2=8", 3, 100.0)
    assert told["completed"] == told["sent"] > 0


def test_the_record_of_every_request_is_kept_when_asked_for(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "raw.jsonl"
    told = json.loads(run([bundle, "--rate", 100, "--for", "0.3s", "--raw", file, "--hdr", tmp_path / "d", "--json"], capsys))
    assert len(file.read_text().splitlines()) == told["sent"]
    assert (tmp_path / "d").exists() == (told["verdict"] != "generator-bound")


def test_a_server_is_loaded_by_its_url(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving.process("headway", "serve", "--json", str(bundle), "--http", "127.0.0.1:0") as (_, ready):
        out = run([ready["url"], "--rate", 100, "--for", "0.5s"], capsys)
        told = json.loads(run([ready["url"], "--rate", 100, "--for", "0.5s", "--slo", "p50<=1us", "--json"], capsys, code=3))
    assert "latency from the due time" in out and "Little's law" in out and "requests are made up" in out
    assert told["target"] == "http" and told["verdict"] in ("missed", "generator-bound")


def test_a_recording_brings_its_own_rate_and_length(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "t.json"
    at_s = np.linspace(3.0, 3.5, 26)
    file.write_bytes(to_json(Trace(start="", arrivals_s=tuple(at_s.tolist()), rows=(1,) * 26)))
    told = json.loads(run([bundle, "--arrivals", f"trace:{file}", "--json"], capsys))
    assert told["sent"] == 26 and told["offered_rate_per_s"] == pytest.approx(50.0)
    faster = json.loads(run([bundle, "--arrivals", f"trace:{file}", "--rate", 200, "--json"], capsys))
    assert faster["sent"] == 26 and faster["duration_s"] < told["duration_s"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], ["--rate R", "--find"]),
        (["--rate", "5", "--arrivals", "poison"], ["did you mean 'poisson'"]),
        (["--rate", "5", "--arrivals", "step:factr=2"], ["did you mean 'factor'"]),
        (["--rate", "5", "--arrivals", "trace"], ["trace:FILE"]),
        (["--rate", "-5"], ["above zero"]),
        (["--rate", "5", "--for", "soon"], ["--for"]),
        (["--find", "--slo", "rate>=5/s"], ["p99<=20ms"]),
        (["--find", "--audit"], ["at most one"]),
        (["--scenario", "singlestream"], ["did you mean 'single-stream'"]),
        (["--scenario", "server", "--slo", "p99<=1s"], ["--rate R"]),
        (["--quick"], ["--scenario"]),
        (["--rate", "5", "--senders", "many"], ["--senders", "many"]),
        (["--rate", "5", "--senders", "2"], ["in-process"]),
        (["--find", "--raw", "f"], ["--raw"]),
        (["--rate", "5", "--raw", "nowhere/f"], ["nowhere/f", "writable"]),
        (["--reference", "b"], ["--audit"]),
        (["--audit", "--reference", "nowhere"], ["nowhere"]),
    ],
    ids=lambda value: " ".join(value)[-40:] if isinstance(value, list) else None,
)
def test_what_cannot_be_is_refused_in_words(
    bundle: Path, arguments: list[str], told: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    message = run([bundle, *arguments], capsys, code=2)
    assert [word for word in told if word not in message] == [] and "Traceback" not in message


# --- the other modes


def test_a_scenario_runs_on_a_bundle(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = json.loads(run([bundle, "--scenario", "single-stream", "--quick", "--for", "0.2s", "--json"], capsys))
    assert told["record"] == "ScenarioResult" and told["valid"] and not told["conforming"]
    assert told["queries"] >= 64 and told["value"] > 0
    out = run([bundle, "--scenario", "offline", "--quick", "--for", "0.2s"], capsys)
    assert "offline: valid, not conforming" in out and "samples a second" in out
    told = json.loads(run([bundle, "--scenario", "multi-stream", "--quick", "--for", "0.2s", "--json"], capsys))
    assert told["samples"] == 8 * told["queries"]


def test_an_audit_s_exit_code_is_its_verdict(bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for verdict, code in (("passed", 0), ("failed", 3), ("unproven", 3)):
        found = (
            Audited(test="TEST01", title="right", verdict="passed", reason="r"),
            Audited(test="TEST04", title="t", verdict=verdict, reason="r"),
        )
        monkeypatch.setattr(command, "audit", lambda *_, found=found, **__: found)
        told = json.loads(run([bundle, "--audit", "--json"], capsys, code=code))
        assert [one["verdict"] for one in told["audit"]] == ["passed", verdict]


def capacity(**more: Any) -> FoundCapacity:
    made: dict[str, Any] = {
        "objective": BOUND, "target": "http", "rate_per_s": 500.0, "low_per_s": 480.0, "high_per_s": 530.0, "searches": 3, "open_above": False,
        "generator_bound": False, "points": (point(),),
    }  # fmt: skip
    return FoundCapacity(**{**made, **more})


def test_a_search_s_exit_code_says_whether_the_rate_was_found(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wanting = msgspec.structs.replace(BOUND, rate_per_s=600.0)
    for found, code in ((capacity(), 0), (capacity(rate_per_s=0.0), 3), (capacity(objective=wanting), 3)):
        monkeypatch.setattr(command, "find", lambda *_, found=found, **__: found)
        assert json.loads(run([bundle, "--find", "--slo", "p99<=20ms", "--json"], capsys, code=code))["record"] == "FoundCapacity"


# --- words


def test_one_screen_says_what_was_measured_and_why_to_believe_it() -> None:
    text = printed(print_load, point(), BOUND, ("a note",))
    for words in (
        "held: p99",
        "offered   100/s",
        "achieved  99/s",
        "in time 98/s",
        "990 sent, 985 answered, 3 refused, 2 failed",
        "! a note",
    ):
        assert words in text, text
    assert "p99 would read 6 ms, 50% less" in text
    assert len(text.splitlines()) < 24


def test_no_percentile_is_quoted_when_the_generator_was_the_bottleneck() -> None:
    late = point(verdict="generator-bound", lateness_p99_s=0.03)
    text = printed(print_load, late, BOUND)
    assert "p50" not in text and "12 " not in text and "none are quoted" in text and "30 ms" in text
    assert command._quotable(late).percentiles == () and command._quotable(point()).percentiles != ()


def test_an_end_that_few_requests_cannot_tell_is_left_open() -> None:
    few = printed(print_load, point(sent=103, completed=100, refused=3, failed=0, verdict="unproven", miss_fraction=0.0), BOUND)
    assert "10.8 or more" in few and "3.60 to 4.40" in few
    assert "196 more, all in time, would prove it" in few


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"verdict": "missed", "miss_fraction": 0.1}, "99 of 990 requests were late, lost or refused, where 9 may be"),
        ({"naive_p99_s": 0.012}, "the same, since no request had to wait"),
        ({"little_ratio": 1.5}, "the queue was growing"),
        ({"little_ratio": 0.5}, "does not add up"),
        ({"steal_fraction": 0.2}, "Other machines took 20%"),
        ({"mean_batch": 3.5}, "Batches held 3.5"),
    ],
)
def test_each_doubt_has_its_sentence(changed: dict[str, Any], words: str) -> None:
    changed_point = point(**changed)
    assert words in " ".join([verdict_words(changed_point, BOUND), *trust_words(changed_point, BOUND)])


def test_a_search_is_told_trial_by_trial_and_in_the_end() -> None:
    assert "100/s" in printed(print_trial, 2, point(), BOUND) and "holds" in printed(print_trial, 2, point(), BOUND)
    late = printed(print_trial, 2, point(verdict="generator-bound", miss_fraction=0.3), BOUND)
    assert "fails" in late and "not quoted" in late and "generator" in late
    assert "capacity 500/s  [480, 530]" in printed(print_capacity, capacity())
    assert "at least" in printed(print_capacity, capacity(open_above=True))
    assert "the target may hold more" in printed(print_capacity, capacity(generator_bound=True))
    assert "holds nothing" in printed(print_capacity, capacity(rate_per_s=0.0))


def test_a_scenario_and_an_audit_say_why_they_are_no_more() -> None:
    result = ScenarioResult(
        scenario="server", metric="rate", value=5.0, unit="1/s", valid=True, conforming=False, queries=10, samples=10, duration_s=1.0, failed=0,
        reasons=("too short",),
    )  # fmt: skip
    text = printed(print_scenario, result)
    assert "server: valid, not conforming" in text and "rate: 5/s" in text and "! too short" in text and "no MLPerf result" in text
    assert "not valid" in printed(print_scenario, msgspec.structs.replace(result, valid=False, value=0.0))
    text = printed(print_audit, [Audited(test="TEST04", title="nothing is cached", verdict="unproven", reason="1.0 [0.8, 1.2]")])
    assert "unproven" in text and "TEST04: the figures allow neither verdict" in text
