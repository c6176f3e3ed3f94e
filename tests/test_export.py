"""``headway export`` and ``headway verify``: predictions, plans, a running server asked, the program run, and every mistake."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
import pytest

from evidence import quality
from headway.api.exporting import ExportAsked, export_bundle, verify_export
from headway.api.planning import PlanAsked, plan_fleet
from headway.cli import main
from headway.deploy import read_export, server_at, verify, write_export
from headway.predict import predict_capacity
from headway.records import (
    BatchTiming,
    BundleError,
    Candidate,
    Choice,
    ConfigError,
    Export,
    FrontEnd,
    InputError,
    Plan,
    Prediction,
    Record,
    RunFinished,
    ServiceCurve,
    parse_objective,
    to_json,
)
from headway.serve import OpenBundle
from serving import affine_model, bundle, entry, lookup_model, running
from test_report_example import started, variant, write

PLAN = Plan(runtime="onnx_runtime", instances=1, threads=1, max_batch=4)
OBJECTIVE = parse_objective("p99<=100ms")
SECONDS = 0.01


def curve(name: str = "a", runtime: str = "onnx_runtime") -> ServiceCurve:
    timings = tuple(BatchTiming(batch=size, service_s=(SECONDS * (0.5 + 0.5 * size),) * 8) for size in (1, 2, 4))
    return ServiceCurve(
        variant=name, runtime=runtime, device="cpu", instances=1, threads=1, timings=timings, tau0_s=0.0, alpha_s=0.0, peak_bytes=0
    )  # fmt: skip


def a_run(folder: Path, *more: Record) -> Path:
    """A run whose bundle holds the variants ``a`` and ``b``; of ``a`` it has a service curve."""
    whom = Candidate(variant="a", plan=PLAN)
    told = Prediction(candidate=whom, capacity_per_s=100.0, rate_per_s=50.0, latency_s=0.05, percentile=0.99)
    write(
        folder,
        [started(objective=OBJECTIVE), msgspec.structs.replace(variant("a"), source="test"), quality("a"), curve(), told, *more,
         Choice(met=True, candidate=whom, reasons=()), RunFinished(budget_s=None)],
    )  # fmt: skip
    made = folder.parent / "made"
    made.mkdir(exist_ok=True)
    bundle(folder / "bundle", entry(affine_model(made / "m.onnx"), "a", PLAN), entry(affine_model(made / "n.onnx", 3.0), "b", PLAN))
    return folder


def export(source: Path, folder: Path, target: str = "program", **more: object) -> Export:
    return export_bundle(ExportAsked(source=source, target=target, folder=folder, **more))  # type: ignore[arg-type]


def command(arguments: list[str], capsys: pytest.CaptureFixture[str], code: int = 0) -> tuple[str, str]:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    out, err = capsys.readouterr()
    assert (ended.value.code or 0) == code, err
    assert "Traceback" not in err
    return out, err


@pytest.fixture
def opened(tmp_path: Path) -> OpenBundle:
    return bundle(tmp_path / "b", entry(affine_model(tmp_path / "m.onnx"), "a", PLAN))


# --- what is expected there


def test_a_server_that_queues_without_end_is_predicted_by_the_same_simulation(tmp_path: Path) -> None:
    made = export(a_run(tmp_path / "run"), tmp_path / "e", "triton", settings={"backend": "python"})
    assert made.expected is not None and made.policy.front_s is not None
    told = predict_capacity(
        curve(), made.policy.plan, OBJECTIVE, front_end_s=made.policy.front_s, front_steals=made.policy.front_steals, refuses=False
    )
    assert made.expected.rate_per_s == told.capacity_per_s
    assert made.expected.low_per_s <= made.expected.rate_per_s <= made.expected.high_per_s
    assert made.expected.own_per_s is None, "the run did not measure a front end"
    assert read_export(tmp_path / "e").expected == made.expected


def test_a_slower_machine_has_a_slower_front_end_there_too(tmp_path: Path) -> None:
    settings = {"backend": "python"}
    policy = export(a_run(tmp_path / "run"), tmp_path / "e", "triton", settings=settings).policy
    assert policy.front_s is not None and policy.own_front_s is not None
    twice = FrontEnd(source="test", cpu_s=1e-3, joined_s=2 * policy.own_front_s, jitter_s=(0.0,), payload_bytes=100, rate_per_s=500.0)
    made = export(a_run(tmp_path / "slow" / "run", twice), tmp_path / "s", "triton", settings=settings)
    told = predict_capacity(
        curve(), policy.plan, OBJECTIVE, front_end_s=2 * policy.front_s, front_steals=policy.front_steals, refuses=False
    )
    assert made.expected is not None and made.expected.rate_per_s == told.capacity_per_s


def test_the_own_server_has_the_front_end_that_the_run_measured(tmp_path: Path) -> None:
    front = FrontEnd(source="test", cpu_s=1e-4, joined_s=3e-5, jitter_s=(0.0, 1e-4), payload_bytes=100, rate_per_s=500.0)
    source = a_run(tmp_path / "run", front)
    made = export(source, tmp_path / "e", "systemd")
    assert made.expected is not None and made.expected.own_per_s == made.expected.rate_per_s
    there = export(source, tmp_path / "t", "triton", settings={"backend": "python"})
    assert there.expected is not None and there.expected.own_per_s == made.expected.rate_per_s
    assert there.expected.rate_per_s < made.expected.rate_per_s, "its front end costs more"


@pytest.mark.parametrize(
    ("target", "more", "said"),
    [
        ("systemd", {}, "did not measure the server's front end"),
        ("systemd", {"variant": "b"}, "no service curve of b"),
        ("program", {}, "answers no requests"),
    ],
)
def test_without_measurements_nothing_is_expected_and_the_reason_is_said(
    target: str, more: Mapping[str, object], said: str, tmp_path: Path
) -> None:
    made = export(a_run(tmp_path / "run"), tmp_path / "e", target, **more)
    assert made.expected is None and any(said in note for note in made.notes)


def test_a_bundle_by_itself_holds_no_measurements(opened: OpenBundle, tmp_path: Path) -> None:
    made = export(opened.root, tmp_path / "e", "systemd")
    assert made.expected is None and any("holds no measurements" in note for note in made.notes)


# --- plans


def test_a_plan_s_replicas_and_autoscaling_go_into_the_export(tmp_path: Path) -> None:
    source = a_run(tmp_path / "run")
    fleet = plan_fleet(PlanAsked(runs=(str(source),), rate_per_s=400.0, arrivals="diurnal", cold_start_s=30.0))
    (tmp_path / "plan.json").write_bytes(to_json(fleet))
    made = export(source, tmp_path / "e", "kserve", plan=tmp_path / "plan.json", settings={"image": "registry.example/m:1"})
    assert made.scaling == fleet.fleets[0].autoscaling and made.variant == "a"
    text = (tmp_path / "e" / "inference-service.yaml").read_text()
    assert f"scaleTarget: {int(fleet.fleets[0].autoscaling.target_in_flight)}" in text
    assert f"maxReplicas: {fleet.fleets[0].autoscaling.peak_replicas}" in text


@pytest.mark.parametrize(
    ("text", "said"),
    [("{}", "must hold what headway plan"), ("nonsense", "must hold what headway plan"), (None, "must be a plan that can be read")],
)
def test_a_file_that_is_no_plan_is_a_sentence(text: str | None, said: str, opened: OpenBundle, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "plan.json").write_text(text)
    with pytest.raises(InputError, match=said):
        export(opened.root, tmp_path / "e", plan=tmp_path / "plan.json")
    assert not (tmp_path / "e").exists()


def test_a_plan_of_another_run_is_refused(tmp_path: Path) -> None:
    source = a_run(tmp_path / "run")
    fleet = plan_fleet(PlanAsked(runs=(str(source),), rate_per_s=400.0))
    (tmp_path / "plan.json").write_bytes(to_json(fleet))
    with pytest.raises(ConfigError, match="must be for a variant of the bundle"):
        export(source, tmp_path / "e", variant="b", plan=tmp_path / "plan.json")


# --- answers


def test_a_running_server_is_asked_and_its_answers_compared(opened: OpenBundle, tmp_path: Path) -> None:
    export(opened.root, tmp_path / "e", "systemd")
    other = bundle(tmp_path / "o", entry(affine_model(tmp_path / "n.onnx", 2.5), "a", PLAN))
    with running(opened) as ready:
        found = verify_export(tmp_path / "e", ready.url)
        assert found.server_difference is not None and found.server_difference < 1e-6 and found.asked == ready.url
    with running(other) as ready, pytest.raises(BundleError, match=r"output 'y' must be within .* lies"):
        verify_export(tmp_path / "e", ready.url)
    with pytest.raises(BundleError, match="the server must answer, got"):
        verify_export(tmp_path / "e", ready.url)


def test_a_server_without_the_model_and_one_that_wants_a_token(opened: OpenBundle, tmp_path: Path) -> None:
    export(opened.root, tmp_path / "e", "systemd", name="another")
    with running(opened) as ready, pytest.raises(BundleError, match="got 404"):
        verify_export(tmp_path / "e", ready.url)
    export(opened.root, tmp_path / "e", "systemd")
    with running(opened, token="secret-4711") as ready:
        with pytest.raises(BundleError, match="got 401"):
            verify_export(tmp_path / "e", ready.url)
        assert verify_export(tmp_path / "e", ready.url, "secret-4711").server_difference is not None


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://x", "http://", "http://a:b@c", "http://x:99999", "http://x/?q=1"])
def test_what_is_no_address_is_a_sentence(url: str) -> None:
    with pytest.raises(ConfigError, match="--url must be an address"):
        server_at(url)


def test_a_model_that_answers_otherwise_here_is_found_out(opened: OpenBundle, tmp_path: Path) -> None:
    export(opened.root, tmp_path / "e")
    with np.load(tmp_path / "e" / "golden.npz") as arrays:
        changed = {name: array * 1.5 if name == "output/y" else array for name, array in arrays.items()}
    np.savez_compressed(tmp_path / "e" / "golden.npz", **changed)
    manifest = json.loads((tmp_path / "e" / "export.json").read_text())
    manifest["files"]["golden.npz"] = hashlib.sha256((tmp_path / "e" / "golden.npz").read_bytes()).hexdigest()
    (tmp_path / "e" / "export.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"output 'y' must be within"):
        verify(tmp_path / "e")


# --- the program


@pytest.mark.parametrize("batch", ["batch", 2])
def test_the_program_answers_whatever_the_number_of_rows(batch: str | int, tmp_path: Path) -> None:
    plan = PLAN if batch == "batch" else Plan(runtime="onnx_runtime")
    write_export("program", bundle(tmp_path / "b", entry(affine_model(tmp_path / "m.onnx", batch=batch), "a", plan)), tmp_path / "e")
    rows = np.random.default_rng(0).normal(size=(11 if batch == "batch" else 2, 4)).astype(np.float32)
    np.savez(tmp_path / "in.npz", x=rows)
    words = [sys.executable, str(tmp_path / "e" / "program.py"), str(tmp_path / "in.npz"), str(tmp_path / "out.npz")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "out.npz") as out:
        assert out["y"] == pytest.approx(2 * rows + 1)
        assert np.array_equal(out["top"], rows.argmax(axis=1))


def test_the_program_says_what_is_wrong_with_its_input(tmp_path: Path) -> None:
    write_export("program", bundle(tmp_path / "b", entry(lookup_model(tmp_path / "m.onnx"), "a", PLAN)), tmp_path / "e")
    np.savez(tmp_path / "in.npz", other=np.ones(3))
    for arguments, said in (([], "usage:"), ([str(tmp_path / "in.npz"), str(tmp_path / "out.npz")], "ids is missing")):
        done = subprocess.run(
            [sys.executable, str(tmp_path / "e" / "program.py"), *arguments], capture_output=True, text=True, check=False
        )  # fmt: skip
        assert done.returncode != 0 and said in done.stderr and "Traceback" not in done.stderr


def test_the_program_has_the_plan_s_threads_and_says_what_it_is_not(tmp_path: Path) -> None:
    plan = Plan(runtime="onnx_runtime", instances=3, threads=2, max_batch=16)
    made = write_export("program", bundle(tmp_path / "b", entry(affine_model(tmp_path / "m.onnx"), "a", plan)), tmp_path / "e")
    text = (tmp_path / "e" / "program.py").read_text()
    assert re.search(r"^THREADS = 2$", text, re.MULTILINE) and re.search(r"^MAX_BATCH = 16$", text, re.MULTILINE)
    assert any("3 instances" in note for note in made.notes)


# --- the command line


def test_the_commands_print_what_to_do_next(
    opened: OpenBundle, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    folder = str(tmp_path / "e")
    out, _ = command(["export", str(opened.root), folder, "--to", "program"], capsys)
    assert "start it:  python program.py" in out and f"check it:  headway verify {folder}" in out and "program.py" in out
    out, _ = command(["verify", folder], capsys)
    assert "program.py, run here: " in out and "files are as they were exported" in out
    out, _ = command(["verify", folder, "--json"], capsys)
    assert json.loads(out)["server_difference"] < 1e-6
    out, _ = command(["export", str(opened.root), folder, "--to", "program", "--json"], capsys)
    assert json.loads(out)["target"] == "program"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--to", "moon"], "--to must be one of"),
        (["--to", "program", "--variant", "z"], "--variant must be one of"),
        (["--to", "program", "--set", "nonsense"], "--set must be NAME=VALUE"),
        (["--to", "program", "--set", "a=1"], "the settings of program are none"),
        (["--to", "program", "--name", "a/b"], "the name must be"),
        (["--to", "kserve"], "--set image must name the image"),
    ],
)
def test_mistakes_are_sentences(more: list[str], said: str, opened: OpenBundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, err = command(["export", str(opened.root), str(tmp_path / "e"), *more], capsys, 2)
    assert said in " ".join(err.split())
    assert not (tmp_path / "e").exists()


def test_a_folder_with_something_else_in_it_is_left_alone(opened: OpenBundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "mine.txt").write_text("mine")
    _, err = command(["export", str(opened.root), str(tmp_path / "e"), "--to", "program"], capsys, 2)
    assert "must be an export (which is then replaced)" in " ".join(err.split())
    assert [path.name for path in (tmp_path / "e").iterdir()] == ["mine.txt"]
    _, err = command(["verify", str(tmp_path / "e")], capsys, 2)
    assert "has no export.json" in " ".join(err.split())
