"""One run in progress: its folder, journal, objective, budget, trackers and voice."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from headway.api.config import TuneConfig
from headway.api.placing import Here, Place
from headway.api.progress import Progress
from headway.records import BundleError, InputError, Journal, Objective, Plan, Record, Rejection, RunStarted, StageTime
from headway.track import Trackers

R = TypeVar("R", bound=Record)

DEADLINES = {"compress": 0.33, "curve": 0.45, "predict": 0.5, "load": 0.62, "contest": 0.97}
"""Share of the budget by whose end each stage must leave the rest to the next one."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run in progress. Records go through ``add``, so that journal and trackers see the same."""

    folder: Path
    config: TuneConfig
    objective: Objective
    journal: Journal
    progress: Progress
    trackers: Trackers
    began_s: float = field(default_factory=time.monotonic)
    skipped: dict[str, list[str]] = field(default_factory=dict)
    place: Place = field(default_factory=Here)

    def add(self, record: R) -> R:
        """Write one record; gives it back."""
        self.journal.append(record)
        self.trackers.log(record)
        return record

    def reject(self, stage: str, variant: str, plan: Plan | None, reason: str, **figures: float) -> None:
        """Record once why a variant (or, with a plan, a candidate) is out."""
        rejection = Rejection(stage=stage, variant=variant, plan=plan, reason=reason, figures=figures)
        if rejection not in self.journal.of(Rejection):
            self.add(rejection)

    def leave_out(self, kind: str, what: str) -> None:
        """Note something that the budget left no time for."""
        self.skipped.setdefault(kind, []).append(what)

    @property
    def left_out(self) -> tuple[str, ...]:
        """What the budget left no time for, one sentence for each kind."""
        return tuple(
            f"{len(items)} {kind} left out for lack of time: {', '.join(items[:2])}{', ...' if len(items) > 2 else ''}"
            for kind, items in self.skipped.items()
        )

    def spent(self, stage: str) -> bool:
        """Whether the budget's share up to the end of ``stage`` is used up."""
        budget_s = self.config.budget_s
        return budget_s is not None and time.monotonic() - self.began_s > DEADLINES[stage] * budget_s

    def concluded(self, stage: str) -> bool:
        """Whether a stage was carried to its end before, under the same budget: then a resume repeats what was decided and measures nothing more."""
        began = self.journal.last(RunStarted)
        same = began is not None and began.config.get("budget") == self.config.budget
        return same and any(line.stage == stage for line in self.journal.of(StageTime))

    def over(self, stage: str) -> bool:
        """Whether a stage may begin nothing new: its time is used up, or it was carried to its end before."""
        return self.spent(stage) or self.concluded(stage)

    def left_s(self, stage: str, otherwise_s: float) -> float:
        """Seconds that ``stage`` may still use [s]; ``otherwise_s`` without a budget."""
        budget_s = self.config.budget_s
        if budget_s is None:
            return otherwise_s
        return max(0.0, min(otherwise_s, DEADLINES[stage] * budget_s - (time.monotonic() - self.began_s)))

    @contextlib.contextmanager
    def stage(self, name: str, title: str, steps: int) -> Iterator[None]:
        """A stage: announced, timed, and its wall time recorded."""
        self.progress.stage(title, steps)
        began = time.monotonic()
        yield
        self.add(StageTime(stage=name, duration_s=time.monotonic() - began))


def open_folder(folder: Path, *, resume: bool) -> Journal:
    """The journal of a run folder: empty for a new run, the old one for a resume.

    Raises:
        InputError: the folder cannot be written.
        BundleError: it holds a run and ``resume`` was not asked for.
    """
    try:
        (folder / "variants").mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.write_bytes(b"headway")
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"{folder}: must be a folder that can be written, got: {error.strerror or error}. Choose another with --out."
        ) from error
    journal = Journal(folder, alone=True)
    if len(journal) and not resume:
        journal.release()
        raise BundleError(f"{folder}: already holds a run. Continue it with --resume, or choose another folder with --out.")
    return journal


def check_same(old: RunStarted, new: RunStarted) -> None:
    """Refuse to continue a run that was started with something else.

    Raises:
        BundleError: objective, sources, data, seed or options differ; the message names the first that does.
    """
    ignored = {"budget", "track", "out", "on"}
    for what, before, now in (
        ("objective", str(old.objective), str(new.objective)),
        ("model", old.sources, new.sources),
        ("data", old.data.digest, new.data.digest),
        ("seed", old.seed, new.seed),
        ("CPU", old.environment.cpu, new.environment.cpu),
        ("options", {k: v for k, v in old.config.items() if k not in ignored}, {k: v for k, v in new.config.items() if k not in ignored}),
    ):
        if before != now:
            raise BundleError(
                f"--resume: the {what} must be the same as when the run began, got {now!r} instead of {before!r}. Tune again into a new folder with --out."
            )
