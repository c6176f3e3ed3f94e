"""Where work runs: the words of ``--on``, the lock of a machine, and records that do not tell where the work was done."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

import headway.cluster
from elsewhere import Elsewhere, begun, compressed_here, files, told, without_timing
from headway.api import curves, placing
from headway.api.compressing import compress
from headway.api.curves import measure_curves
from headway.api.placing import Here, check_place, open_place
from headway.api.progress import Silent
from headway.api.run import Run
from headway.api.variants import Piece, Scored
from headway.cluster.tuning_machines import held, machine
from headway.discovery import Found
from headway.records import (
    ConfigError,
    Failure,
    HeadwayError,
    InputError,
    MissingPackage,
    Noise,
    Rejection,
    ServiceCurve,
    Variant,
)

NOT_YET_S = 0.3
SOON_S = 60.0


# --- words


@pytest.mark.parametrize("on", ["", "ray", "ray:auto", "ray:127.0.0.1:6379", "ray://head:10001"])
def test_places_that_can_be_named(on: str) -> None:
    check_place(on)


@pytest.mark.parametrize("on", ["rays", "ray:", "ray://", "spark", "127.0.0.1:6379"])
def test_other_places_are_refused_with_what_can_be_named(on: str) -> None:
    with pytest.raises(ConfigError, match="--on: must be ray"):
        check_place(on)


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placing, "find", lambda package, name: Found(missing={name: "needs the package ray, which is not installed"}))
    with pytest.raises(MissingPackage, match=r"pip install 'headway\[ray\]'"):
        open_place("ray", Silent())
    assert headway.cluster


def test_without_a_place_work_is_done_here_and_nothing_is_copied() -> None:
    place = open_place("", Silent())

    def never() -> object:
        raise AssertionError("nothing is shared")

    with place.holding(alone=True), place.ahead(print, never, alone=True, brief=print, keep=print) as ahead:
        ahead.foresee(never() for _ in range(1))  # type: ignore[misc]
        assert ahead.take(None) is None  # type: ignore[arg-type]
    assert isinstance(place, Here) and place.notes == ()


# --- a machine


class Worker(threading.Thread):
    """Holds the machine until it is let go."""

    def __init__(self, folder: Path, *, alone: bool) -> None:
        super().__init__(daemon=True)
        self.inside, self.leave = threading.Event(), threading.Event()
        self._holding: Callable[[], AbstractContextManager[None]] = lambda: held(alone=alone, folder=folder)
        self.start()

    def run(self) -> None:
        with self._holding():
            self.inside.set()
            self.leave.wait(SOON_S)

    def end(self) -> None:
        self.leave.set()
        self.join(SOON_S)


def test_makers_work_beside_each_other_and_who_measures_is_alone(tmp_path: Path) -> None:
    makers = [Worker(tmp_path, alone=False) for _ in range(2)]
    assert all(maker.inside.wait(SOON_S) for maker in makers)
    measuring = Worker(tmp_path, alone=True)
    assert not measuring.inside.wait(NOT_YET_S)
    late = Worker(tmp_path, alone=False)
    makers[0].end()
    assert not measuring.inside.wait(NOT_YET_S), "one maker is still at work"
    assert not late.inside.is_set(), "who comes later does not overtake"
    makers[1].end()
    assert measuring.inside.wait(SOON_S)
    assert not late.inside.wait(NOT_YET_S)
    measuring.end()
    assert late.inside.wait(SOON_S)
    late.end()


def _hold(folder: Path, inside: Event) -> None:
    with held(alone=True, folder=folder):
        inside.set()
        threading.Event().wait()


def test_a_process_that_is_killed_has_let_go(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    inside = context.Event()
    process = context.Process(target=_hold, args=(tmp_path, inside), daemon=True)
    process.start()
    assert inside.wait(SOON_S)
    waiting = Worker(tmp_path, alone=True)
    assert not waiting.inside.wait(NOT_YET_S)
    process.kill()
    assert waiting.inside.wait(SOON_S)
    waiting.end()
    process.join(SOON_S)


def test_a_machine_is_the_same_for_all_its_processes() -> None:
    assert machine() and machine() == machine()


# --- a run


@pytest.fixture
def no_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    without_timing(monkeypatch)


@pytest.fixture(scope="module")
def here(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return compressed_here(tmp_path_factory.mktemp("here") / "run", digits)


@pytest.mark.usefixtures("no_timing")
def test_work_done_elsewhere_and_before_its_time_leaves_the_same_records_and_files(here: Run, digits: Path, tmp_path: Path) -> None:
    place = Elsewhere()
    run, prepared = begun(tmp_path / "run", digits, place)
    compress(run, prepared)
    assert told(run) == told(here)
    assert files(run) == files(here)
    assert any(isinstance(line, Rejection) for line in told(run)) and len(run.journal.of(Variant)) > 5
    assert place.done[: len(place.asked)] != place.asked, "not in the order in which it was asked for"
    assert set(place.asked) <= set(place.done)
    run.journal.release()


@pytest.mark.usefixtures("no_timing")
def test_what_nobody_else_can_do_is_done_here(here: Run, digits: Path, tmp_path: Path) -> None:
    names = [variant.name for variant in here.journal.of(Variant)]
    place = Elsewhere(forgets=frozenset(names[2:4]))
    run, prepared = begun(tmp_path / "run", digits, place)
    compress(run, prepared)
    assert told(run) == told(here) and files(run) == files(here)
    assert place.held.count(False) > 2, "beside others, but with nobody who measures"
    run.journal.release()


@pytest.mark.usefixtures("no_timing")
def test_a_recipe_that_ends_every_process_is_a_failure_with_the_reason(here: Run, digits: Path, tmp_path: Path) -> None:
    name = here.journal.of(Variant)[-1].name
    place = Elsewhere(breaks={name: HeadwayError("3 processes ended")})
    run, prepared = begun(tmp_path / "run", digits, place)
    compress(run, prepared)
    assert [(failure.stage, failure.variant, failure.reason) for failure in run.journal.of(Failure)][-1] == (
        "compress",
        name,
        "3 processes ended",
    )
    assert [variant.name for variant in run.journal.of(Variant)] == [variant.name for variant in here.journal.of(Variant)][:-1]
    run.journal.release()


@pytest.mark.usefixtures("no_timing")
def test_a_resumed_run_goes_on_elsewhere_with_what_is_missing(here: Run, digits: Path, tmp_path: Path) -> None:
    cut = len(here.journal) // 2
    (tmp_path / "run").mkdir()
    lines = (here.folder / "records.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "run" / "records.jsonl").write_bytes(b"".join(lines[: cut + 1]))
    (tmp_path / "run" / "variants").symlink_to(here.folder / "variants")
    place = Elsewhere()
    run, prepared = begun(tmp_path / "run", digits, place, resume=True)
    before = {variant.name for variant in run.journal.of(Variant)}
    compress(run, prepared)
    assert told(run) == told(here)
    assert not before & set(place.done), "nothing is made twice"
    run.journal.release()


def test_curves_measured_elsewhere_are_recorded_in_the_order_in_which_they_were_asked_for(here: Run, digits: Path, tmp_path: Path) -> None:
    place = Elsewhere()
    run, prepared = begun(tmp_path / "run", digits, place)
    (run.folder / "variants").rmdir()
    (run.folder / "variants").symlink_to(here.folder / "variants")
    qualities = {line.variant: line for line in here.journal if type(line).__name__ == "Quality"}
    alive = [Scored(v, "onnx_runtime", qualities[v.name]) for v in here.journal.of(Variant) if v.name in qualities][:3]
    found = measure_curves(run, prepared, alive)
    assert found and place.done[:3] == place.asked[2::-1], "the last one first"
    assert [line.variant for line in run.journal.of(ServiceCurve)][:3] == [scored.variant.name for scored in alive]
    (noise,) = run.journal.of(Noise)
    assert noise.stage == curves.STAGE and noise.noise_ratio >= 1
    assert place.held == [], "this process measured nothing"
    run.journal.release()


def test_files_that_were_brought_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    piece = Piece(None, files={"a.onnx": b"graph", "a.onnx.data": b"weights"})
    (tmp_path / "aside").mkdir()
    aside = piece.aside(tmp_path / "aside")
    assert all(isinstance(file, Path) for file in aside.files.values())
    (tmp_path / "run").mkdir()
    aside.place(tmp_path / "run")
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == dict(piece.files)
    with pytest.raises(InputError, match="must be writable"):
        piece.place(tmp_path / "nowhere")
