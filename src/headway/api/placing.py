"""Where the work of a run is done: in this process, or also on the nodes of a cluster.

A stage asks for its work one piece after another, decides, and writes the records, always in this process and always in that order. A place may
have done a piece before it is asked for: ``foresee`` says what will be. So records and decisions are the same wherever the work is done; only
measured times differ, as they do between any two runs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import headway.cluster
from headway.api.progress import Progress
from headway.cluster.tuning_work import Asking, Job, Task
from headway.cluster.where import check_where
from headway.discovery import find
from headway.records import MissingPackage

HERE = ""


class Ahead(Protocol):
    """Work of one kind, done before it is asked for."""

    def foresee(self, askings: Iterable[Asking]) -> None:
        """Take note of what will be asked for; those who ask get a brief of each result and may then ask for more. Where all work is done in this
        process nothing is."""

    def take(self, job: Job) -> Any | None:
        """The result of a job; none where it must be done in this process.

        Raises:
            HeadwayError: the job ended every process that took it; the message says so.
        """


class Place(Protocol):
    """Where work is done.

    Attributes:
        notes: what a reader of the results should know of the place: nodes that were lost, nodes that could not measure.
    """

    @property
    def notes(self) -> tuple[str, ...]: ...

    def ahead(
        self, task: Task, shared: Callable[[], object], *, alone: bool, brief: Callable[[Any], Any], keep: Callable[[Any], Any]
    ) -> AbstractContextManager[Ahead]:
        """Work of one kind; at the end of the block what nobody asked for is dropped.

        Args:
            task: does one job.
            shared: gives what all jobs need; called once, and only where work leaves this process.
            alone: whether the job measures: it then has its whole machine to itself, and only a machine like this one does it.
            brief: what those who foresee are told of a result.
            keep: a result as it is kept until it is asked for.
        """

    def holding(self, *, alone: bool) -> AbstractContextManager[None]:
        """This machine for work in this process: with nothing else on it (``alone``), or with nobody who measures. Not to be nested."""

    def close(self) -> None:
        """End all work that is still under way elsewhere."""


class _Nothing:
    """Nothing is done ahead."""

    def foresee(self, askings: Iterable[Asking]) -> None:
        """Nothing."""

    def take(self, job: Job) -> None:
        """Nothing: the job must be done by who asks."""


class Here:
    """This process, one piece of work after another."""

    notes: tuple[str, ...] = ()

    def ahead(
        self, task: Task, shared: Callable[[], object], *, alone: bool, brief: Callable[[Any], Any], keep: Callable[[Any], Any]
    ) -> AbstractContextManager[Ahead]:
        """Nothing is done ahead."""
        return contextlib.nullcontext(_Nothing())

    def holding(self, *, alone: bool) -> AbstractContextManager[None]:
        """Nothing: this process does one thing at a time."""
        return contextlib.nullcontext()

    def close(self) -> None:
        """Nothing."""


def check_place(on: str) -> None:
    """Nothing.

    Raises:
        ConfigError: ``--on`` names no place.
    """
    if on != HERE:
        check_where(on)


def open_place(on: str, progress: Progress) -> Place:
    """The place that ``--on`` names; nothing: this process.

    Raises:
        ConfigError: no such place, no cluster runs there, or its nodes hold other versions than this process.
        MissingPackage: the cluster's package is not installed.
    """
    check_place(on)
    if on == HERE:
        return Here()
    found = find(headway.cluster, "tuning")
    if "tuning" in found.missing:
        raise MissingPackage(f"--on {on}: {found.missing['tuning']}. Run: pip install 'headway[ray]'")
    place: Place = found.present["tuning"].OnRay(on, note=progress.note, step=progress.step)
    return place
