"""A run with its work somewhere else; and a place that stands for a cluster.

There what is foreseen is done at once, in the reverse order, and everything that would travel is pickled.
"""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headway.api import compressing, refining
from headway.api.config import TuneConfig
from headway.api.placing import Here, Place
from headway.api.prepare import Prepared, begin, prepare
from headway.api.progress import Silent
from headway.api.run import Run, open_folder
from headway.api.variants import Scored
from headway.cluster.tuning_work import Asking, Job, Task
from headway.records import BatchTiming, Record, ServiceCurve, Variant, parse_objective
from headway.track import open_trackers


def travelled(value: Any) -> Any:
    """A value as it comes out at the other end."""
    return pickle.loads(pickle.dumps(value))


@dataclass
class Elsewhere:
    """Does everything foreseen; ``asked`` are keys in the order in which they were asked for, ``done`` in the order in which they were done.

    Attributes:
        forgets: keys that it leaves to who asks.
        breaks: keys that end every process.
    """

    forgets: frozenset[str] = frozenset()
    breaks: dict[str, Exception] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    held: list[bool] = field(default_factory=list)
    notes: tuple[str, ...] = ()

    @contextlib.contextmanager
    def ahead(
        self, task: Task, shared: Callable[[], object], *, alone: bool, brief: Callable[[Any], Any], keep: Callable[[Any], Any]
    ) -> Iterator[Done]:
        yield Done(self, task, travelled(shared()), brief, keep)

    @contextlib.contextmanager
    def holding(self, *, alone: bool) -> Iterator[None]:
        self.held.append(alone)
        yield

    def close(self) -> None:
        pass


@dataclass
class Done:
    place: Elsewhere
    task: Task
    shared: Any
    brief: Callable[[Any], Any]
    keep: Callable[[Any], Any]
    results: dict[str, Any] = field(default_factory=dict)
    briefs: dict[str, Any] = field(default_factory=dict)

    def foresee(self, askings: Iterable[Asking]) -> None:
        waiting: list[tuple[Asking, list[Job]]] = [(asking, list(next(asking))) for asking in askings]
        while waiting:
            asking, jobs = waiting.pop()
            for job in reversed(jobs):
                self._do(job)
            with contextlib.suppress(StopIteration):
                waiting.append((asking, list(asking.send([self.briefs[job.key] for job in jobs]))))

    def _do(self, job: Job) -> None:
        if job.key not in self.briefs:
            self.place.done.append(job.key)
            result = travelled(self.task(self.shared, travelled(job.item), job.file))
            self.briefs[job.key] = self.brief(result)
            self.results[job.key] = self.keep(result)

    def take(self, job: Job) -> Any | None:
        self.place.asked.append(job.key)
        if job.key in self.place.breaks:
            raise self.place.breaks[job.key]
        if job.key in self.place.forgets:
            return None
        self._do(job)
        return self.results.pop(job.key)


def rate_of(scored: Scored, split: tuple[int, int]) -> ServiceCurve:
    """A curve that hangs on nothing but the variant."""
    service_s = 1e-3 + 1e-12 * int(scored.variant.digest[:8], 16)
    return ServiceCurve(
        variant=scored.variant.name, runtime=scored.runtime, device="cpu", instances=split[0], threads=split[1],
        timings=(BatchTiming(batch=1, service_s=(service_s,) * 8),), tau0_s=0.0, alpha_s=service_s, peak_bytes=0,
    )  # fmt: skip


def without_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked for between the rungs follows rates; make them the same in every run."""
    for room in (compressing, refining):
        monkeypatch.setattr(room, "curve_of", lambda run, prepared, scored, split: rate_of(scored, split))
    monkeypatch.setattr(refining, "REFINING_TRIALS", 3)


def begun(folder: Path, digits: Path, place: Place, *, resume: bool = False) -> tuple[Run, Prepared]:
    config = TuneConfig(
        models=(str(digits / "model.onnx"),), data=str(digits / "val.npz"), slo="p99<=50ms, drop<=2%", out=str(folder),
        runtimes=("onnx_runtime",), techniques=("fold", "precision", "quantize_dynamic", "quantize_weights", "prune_weights"),
    )  # fmt: skip
    prepared = prepare(config)
    trackers = open_trackers((), folder, {})
    run = Run(folder, config, parse_objective(config.slo), open_folder(folder, resume=resume), Silent(), trackers, place=place)
    begin(run, prepared)
    return run, prepared


def told(run: Run) -> list[Record]:
    """All records but the first, without how long steps took."""
    lines = list(run.journal)[1:]
    return [
        msgspec.structs.replace(line, effects=tuple(msgspec.structs.replace(effect, duration_s=0.0) for effect in line.effects))
        if isinstance(line, Variant)
        else line
        for line in lines
    ]


def files(run: Run) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((run.folder / "variants").iterdir())}


def compressed_here(folder: Path, digits: Path) -> Run:
    """A run that this process alone carried through the stage of compression."""
    with pytest.MonkeyPatch.context() as patch:
        without_timing(patch)
        run, prepared = begun(folder, digits, Here())
        compressing.compress(run, prepared)
    run.journal.release()
    return run
