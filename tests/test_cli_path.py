"""The main path once for real: tune, serve, load, report, an objective out of reach, and a run that was killed."""

from __future__ import annotations

import collections
import json
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from command_line import Said, ask, finish, headway, serving, start
from headway.records import (
    Capacity,
    LoadRun,
    Prediction,
    Quality,
    Record,
    RunFinished,
    ServiceCurve,
    Summary,
    Variant,
    from_json,
    read_journal,
)

SMALL = ("--techniques", "fold", "--runtimes", "onnx_runtime", "--no-compare", "--budget", "8s", "--json")


@pytest.fixture(scope="session")
def work(digits: Path) -> Path:
    """Where the commands run: a folder with the model and the samples."""
    return digits


TUNE = ("tune", "model.onnx", "--data", "val.npz", "--slo", "p99<=50ms, drop<=5%", "--json", "--budget", "20s")


@pytest.fixture(scope="session")
def tuned(work: Path, cache: Path) -> Said:
    return headway([*TUNE, "--out", "run"], work, cache)


def test_tune_prints_one_object_with_choice_frontier_rejections_and_environment(tuned: Said, work: Path) -> None:
    assert tuned.code == 0, tuned.err
    told = tuned.json
    assert told["choice"]["met"] is True
    assert told["choice"]["candidate"] and told["choice"]["reasons"]
    assert told["frontier"]["points"]
    assert told["rejected"] or told["left_out"]
    assert all(rejection["reason"] for rejection in told["rejected"])
    assert told["environment"]["cpu"] and told["environment"]["cores"] >= 1
    summary = from_json(tuned.out, Summary)
    assert summary.choice.quality is not None and summary.choice.quality.part == "report"
    assert summary.comparison is not None and "naive" in summary.comparison.capacity_per_s
    assert {path.name for path in (work / "run").iterdir()} >= {"records.jsonl", "report.html", "bundle", "variants"}
    assert not list((work / "run").glob(".*")), "nothing half-written stays"


def test_the_page_of_the_run_needs_nothing_from_outside(tuned: Said, work: Path) -> None:
    page = (work / "run" / "report.html").read_text("utf-8")
    assert page.startswith(("<!doctype html>", "<!DOCTYPE html>"))
    assert 'src="http' not in page and "@import" not in page


def test_report_draws_the_page_again(tuned: Said, work: Path, cache: Path) -> None:
    page = work / "run" / "report.html"
    page.unlink()
    said = headway(["report", "run", "--json"], work, cache)
    assert said.code == 0 and Path(work / said.json["report"]) == page and page.stat().st_size > 10_000


def test_the_bundle_answers_as_onnx_runtime_does_and_takes_load(
    tuned: Said, work: Path, cache: Path, digits_samples: dict[str, np.ndarray]
) -> None:
    images = digits_samples["image"][:1]  # more rows than the plan's largest batch would be refused
    session = onnxruntime.InferenceSession(work / "model.onnx", providers=["CPUExecutionProvider"])
    expected = session.run(None, {"image": images})[0]
    with serving(["run"], work, cache) as ready:
        tensor = {"name": "image", "shape": list(images.shape), "datatype": "FP32", "data": images.ravel().tolist()}
        _, text = ask(f"{ready['url']}/v2/models/{ready['model']}/infer", {"inputs": [tensor]})
        answer = json.loads(text)
        scores = np.array(answer["outputs"][0]["data"]).reshape(answer["outputs"][0]["shape"])
        assert np.array_equal(scores.argmax(1), expected.argmax(1))
        loaded = headway(["load", ready["url"], "--rate", "50", "--for", "2s", "--json"], work, cache)
        assert loaded.code == 0, loaded.err
        point = loaded.json
        assert point["target"] == "http" and point["completed"] == point["sent"] > 50 and point["failed"] == 0
        judged = headway(["load", ready["url"], "--rate", "20", "--for", "1s", "--slo", "p50<=1us", "--json"], work, cache)
        assert judged.code == 3 and judged.json["verdict"] in ("missed", "generator-bound")


def test_load_runs_on_a_bundle_in_this_process(tuned: Said, work: Path, cache: Path) -> None:
    said = headway(["load", "run", "--rate", "50", "--for", "1s", "--data", "val.npz", "--json"], work, cache)
    assert said.code == 0, said.err
    assert said.json["target"] == "in-process" and said.json["completed"] > 10


def test_a_second_run_into_the_same_folder_is_refused(tuned: Said, work: Path, cache: Path) -> None:
    before = (work / "run" / "records.jsonl").read_bytes()
    said = headway(["tune", "model.onnx", "--data", "val.npz", "--slo", "p99<=50ms", "--out", "run", "--json"], work, cache)
    assert said.code == 2
    assert "already holds a run" in said.err and "--resume" in said.err
    assert said.json["error"]["exit_code"] == 2
    assert (work / "run" / "records.jsonl").read_bytes() == before


def test_a_finished_run_played_again_from_its_records_chooses_the_same_and_measures_nothing(tuned: Said, work: Path, cache: Path) -> None:
    shutil.copytree(work / "run", work / "again")
    file = work / "again" / "records.jsonl"
    before = file.read_text().splitlines()
    concluded = ("Frontier", "Comparison", "Choice", "RunFinished")
    predicted = {json.loads(line)["candidate"]["variant"] for line in before if json.loads(line).get("record") == "Prediction"}

    def left(line: str) -> bool:
        """Whether the record stays: the curves of what lost on one core are taken away, as if a slower machine had had no time for them."""
        told = json.loads(line)
        return told.get("record") not in concluded and not (told.get("record") == "ServiceCurve" and told["variant"] not in predicted)

    shorter = [line for line in before if left(line)]
    file.write_text("".join(f"{line}\n" for line in shorter))
    said = headway([*TUNE, "--out", "again", "--resume"], work, cache)
    assert said.code == 0, said.err
    after = file.read_text().splitlines()
    measured = ("Variant", "Quality", "ServiceCurve", "Noise", "FrontEnd", "Prediction", "LoadRun", "Capacity")
    for kind in measured:
        old, new = ([line for line in lines if json.loads(line).get("record") == kind] for lines in (shorter, after))
        assert new == old, f"{kind}: nothing is measured again"
    for kind in ("Choice", "Frontier", "Comparison"):
        old, new = ([line for line in lines if json.loads(line).get("record") == kind] for lines in (before, after))
        assert new == old, f"{kind}: bit for bit"


def test_a_resume_with_another_objective_is_refused(tuned: Said, work: Path, cache: Path) -> None:
    before = (work / "run" / "records.jsonl").read_bytes()
    said = headway(
        ["tune", "model.onnx", "--data", "val.npz", "--slo", "p99<=49ms, drop<=5%", "--out", "run", "--resume", "--json"], work, cache
    )
    assert said.code == 2 and "objective must be the same" in said.err
    assert (work / "run" / "records.jsonl").read_bytes() == before


def test_an_impossible_objective_names_the_bound_how_far_and_the_nearest(work: Path, cache: Path) -> None:
    said = headway(["tune", "model.onnx", "--data", "val.npz", "--slo", "p99<=0.01ms", "--out", "impossible", *SMALL], work, cache)
    assert said.code == 3, said.err
    choice = said.json["choice"]
    assert choice["met"] is False
    assert choice["failing_bound"] == "p99"
    assert "times the bound of 0.01 ms" in choice["shortfall"]
    assert choice["candidate"]["plan"]["runtime"] == "onnx_runtime"
    assert choice["reasons"][0].startswith("nearest is ")
    assert (work / "impossible" / "report.html").is_file()
    assert not (work / "impossible" / "bundle").exists()


def key(line: Record) -> tuple[Any, ...] | None:
    """What was measured; two records of one key are one thing measured twice."""
    match line:
        case Quality():
            return "quality", line.variant, line.runtime, line.part
        case ServiceCurve():
            return "curve", line.variant, line.runtime, line.instances, line.threads
        case Prediction():
            return "prediction", line.candidate
        case Variant():
            return "variant", line.name
        case Capacity():
            return "capacity", line.candidate, line.role, line.target, line.round
        case LoadRun():
            return (
                "load",
                line.candidate,
                line.role,
                line.round,
                line.purpose,
                line.point.target,
                line.point.offered_rate_per_s,
                line.point.seed,
            )
        case _:
            return None


def wait_for(file: Path, kind: str, count: int, process: Any) -> None:
    """Wait until the run has written ``count`` records of a kind."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        assert process.poll() is None, finish(process)
        text = file.read_text("utf-8") if file.exists() else ""
        if text.count(f'{{"record":"{kind}"') >= count:
            return
        time.sleep(0.005)
    pytest.fail(f"the run never came to its {kind}")


def test_a_killed_run_is_resumed_with_nothing_measured_twice(work: Path, cache: Path) -> None:
    command = ["tune", "model.onnx", "--data", "val.npz", "--slo", "p99<=50ms", "--out", "killed", *SMALL]
    process = start(command, work, cache)
    file = work / "killed" / "records.jsonl"
    wait_for(file, "LoadRun", 2, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.communicate()
    with file.open("ab") as torn:
        torn.write(b'{"record":"LoadRun","candi')
    kept = read_journal(work / "killed")
    assert not any(isinstance(line, RunFinished) for line in kept)
    said = headway([*command, "--resume"], work, cache)
    assert said.code == 0, said.err
    lines = read_journal(work / "killed")
    assert lines[: len(kept)] == kept, "what was measured before is still there"
    assert any(isinstance(line, RunFinished) for line in lines)
    counts = collections.Counter(found for line in lines if (found := key(line)) is not None)
    assert [found for found, count in counts.items() if count > 1] == []
    assert json.loads(file.read_text("utf-8").splitlines()[0]) == {"headway_records": 1}
    shutil.rmtree(work / "killed")


def test_ctrl_c_says_how_to_go_on(work: Path, cache: Path) -> None:
    process = start(["tune", "model.onnx", "--data", "val.npz", "--slo", "p99<=50ms", "--out", "stopped", *SMALL], work, cache)
    wait_for(work / "stopped" / "records.jsonl", "RunStarted", 1, process)
    process.send_signal(signal.SIGINT)
    said = finish(process)
    assert said.code == 130
    assert "continue with --resume" in said.err
    assert read_journal(work / "stopped")
