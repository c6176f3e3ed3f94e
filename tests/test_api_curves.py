"""Which curves a run measures when its time for them is over: those without which it could promise one core only."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from evidence import quality
from headway.api import curves
from headway.api.placing import Here
from headway.api.progress import Silent
from headway.api.variants import Scored
from headway.records import BatchTiming, Objective, ServiceCurve, Step, Variant

CORES = 4


def scored(name: str, agreement: float, *techniques: str) -> Scored:
    variant = Variant(
        name=name, source="model", origin="onnx", recipe=tuple(Step(technique=technique, settings={}) for technique in techniques), parent_digest="",
        digest=name, path=name, parameters=1, flop=1, weight_bytes=1, file_bytes=1, precision="float32",
    )  # fmt: skip
    return Scored(variant, "onnx_runtime", msgspec.structs.replace(quality(name), agreement=agreement))


ALIVE = {
    "original": scored("original", 1.0),
    "exact": scored("exact", 0.995, "precision"),
    "close": scored("close", 0.97, "quantize_static"),
    "fast": scored("fast", 0.95, "quantize_static"),
}
SECONDS = {"original": 0.004, "exact": 0.003, "close": 0.0025, "fast": 0.002}


class Clock:
    """A run whose time for curves is over once so many were measured, and that of the stage after next ``later`` curves later."""

    def __init__(self, most: int, later: int = 0) -> None:
        self.most, self.later, self.measured, self.left = most, later, list[tuple[str, tuple[int, int]]](), list[str]()
        self.progress, self.place, self.config = Silent(), Here(), SimpleNamespace(seed=0)
        self.journal, self.objective, self.folder = SimpleNamespace(of=lambda kind: []), Objective(), Path()

    def spent(self, stage: str) -> bool:
        return len(self.measured) >= self.most + (self.later if stage == curves.LATEST else 0)

    def concluded(self, stage: str) -> bool:
        return False

    def over(self, stage: str) -> bool:
        return self.spent(stage) or self.concluded(stage)

    def leave_out(self, kind: str, what: str) -> None:
        self.left.append(what)

    def reject(self, *_: Any, **__: Any) -> None:
        raise AssertionError("nobody is far behind")


def measured(most: int, monkeypatch: pytest.MonkeyPatch, later: int = 0) -> Clock:
    run = Clock(most, later)

    def curve_of(run: Clock, prepared: Any, one: Scored, split: tuple[int, int], ahead: Any) -> ServiceCurve:
        run.measured.append((one.variant.name, split))
        seconds = SECONDS[one.variant.name]
        timings = (BatchTiming(batch=1, service_s=(seconds,) * 3),)
        return ServiceCurve(
            variant=one.variant.name,
            runtime=one.runtime,
            device="cpu",
            instances=split[0],
            threads=split[1],
            timings=timings,
            tau0_s=0.0,
            alpha_s=seconds,
            peak_bytes=0,
        )

    monkeypatch.setattr(curves, "curve_of", curve_of)
    prepared: Any = SimpleNamespace(cores=CORES)
    with Here().ahead(curves.timed, dict, alone=True, brief=str, keep=str) as ahead:
        curves._measured(run, prepared, list(ALIVE.values()), ahead)  # type: ignore[arg-type]
    return run


def test_where_time_is_short_the_fastest_the_most_faithful_and_the_original_are_measured_on_all_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = measured(4, monkeypatch)
    assert run.measured[4:] == [("fast", (CORES, 1)), ("exact", (CORES, 1)), ("original", (CORES, 1))]
    assert len(run.left) > 5


def test_what_was_made_is_looked_at_once_even_where_making_it_took_the_time_for_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    run = measured(0, monkeypatch, later=4)
    assert [name for name, split in run.measured[:4]] == list(ALIVE)
    assert {split for _, split in run.measured[:4]} == {(1, 1)}
    assert [name for name, _ in measured(0, monkeypatch, later=2).measured[:2]] == list(ALIVE)[:2]


def test_with_time_every_split_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    run = measured(1000, monkeypatch)
    assert len(run.measured) == len(set(run.measured)) and run.left == []
    assert {split for _, split in run.measured} >= {(1, 1), (2, 2), (4, 1), (1, 4)}
    assert run.measured[4] == ("fast", (CORES, 1)), "what leads goes first"
