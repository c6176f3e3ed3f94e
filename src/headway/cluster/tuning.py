"""The nodes of a Ray cluster as a place for the work of a tuning run (extra ``ray``).

Ray moves what jobs need, starts them on the node that this file names, and tells when a process or a node has ended. Which job runs where is decided
here, since it hangs on machines and not on nodes: while one job measures, nothing else of the run is on its machine. It knows jobs and machines; it does
not know what a job does.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError, TaskUnschedulableError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from headway.cluster.joining import join, last_line
from headway.cluster.tuning_machines import held
from headway.cluster.tuning_nodes import Node, Told, differences, living, told, told_there
from headway.cluster.tuning_work import Asking, Job, Task
from headway.records import ConfigError, HeadwayError

MOST_DEATHS = 3
"""Processes that one job may end on nodes that go on living; then the fault is the job's."""
REST_S = 5.0
"""How long a node whose work was lost is left alone, unless it turns out to be dead [s]."""
PAUSE_S = 0.2
"""How long to wait where every node that could do a job is resting [s]."""
LOOK_S = 2.0
"""How often the list of nodes is read while work is waited for [s]."""
ANSWER_S = 120.0
"""How long a node may take to start Python and tell what it is [s]."""
THREADS = "OMP_NUM_THREADS"


@dataclass(eq=False)
class _Work:
    """Jobs of one kind, at whatever stage.

    Attributes:
        done: results that nobody took yet; an error stands for a job that was given up.
        briefs: of all results, for those who foresee.
    """

    task: Task
    shared: list[Any]
    key: str
    alone: bool
    brief: Callable[[Any], Any]
    keep: Callable[[Any], Any]
    waiting: dict[str, Job] = field(default_factory=dict)
    done: dict[str, Any] = field(default_factory=dict)
    briefs: dict[str, Any] = field(default_factory=dict)
    deaths: Counter[str] = field(default_factory=Counter)
    askings: list[tuple[Asking, list[str]]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Flight:
    work: _Work
    job: Job
    node: Node


class OnRay:
    """The nodes of a cluster, this machine's among them where it is one.

    Attributes:
        notes: which nodes were lost, and which cannot measure.
    """

    def __init__(self, where: str, *, note: Callable[[str], None], step: Callable[[str], None], own: Told | None = None) -> None:
        """Joins the cluster and looks at every node.

        Args:
            own: what nodes are compared with; none: this process.

        Raises:
            ConfigError: none runs there, it has no node with a CPU to spare, or a node holds other versions than this process.
        """
        self._note, self._step = note, step
        self._notes: list[str] = []
        self._own = own or told()
        self._mine = not ray.is_initialized()
        if self._mine:
            cores = str(self._own.environment.cores)
            join(where, {"env_vars": {THREADS: os.environ.get(THREADS, cores)}})
        self._nodes: dict[str, Node] = {}
        self._lost: set[str] = set()
        self._resting: dict[str, float] = {}
        self._flying: dict[Any, _Flight] = {}
        self._works: list[_Work] = []
        self._files: dict[Path, Any] = {}
        self._looked_s = 0.0
        self._forsaken = False
        self._count = 0
        try:
            self._meet(living(), refuse=True)
            if not self._nodes:
                raise ConfigError(f"--on {where}: the cluster must have a node with at least one CPU, got none; add one with ray start")
        except BaseException:
            self.close()
            raise
        machines = {node.machine for node in self._nodes.values()}
        note(f"works on {len(self._nodes)} nodes ({len(machines)} machines) of the Ray cluster")

    @property
    def notes(self) -> tuple[str, ...]:
        """One sentence for everything that a reader of the results should know."""
        return tuple(self._notes)

    @contextlib.contextmanager
    def ahead(
        self, task: Task, shared: Callable[[], object], *, alone: bool, brief: Callable[[Any], Any], keep: Callable[[Any], Any]
    ) -> Iterator[_Ahead]:
        """Work of one kind, done on the nodes; what is not done at the end of the block is ended."""
        work = _Work(task, [ray.put(shared())], uuid.uuid4().hex, alone, brief, keep)
        self._works.append(work)
        try:
            yield _Ahead(self, work)
        finally:
            self._works.remove(work)
            self._end([ref for ref, flight in self._flying.items() if flight.work is work])

    def holding(self, *, alone: bool) -> contextlib.AbstractContextManager[None]:
        """This machine, for work in this process."""
        return held(alone=alone)

    def close(self) -> None:
        """End what still runs, say which nodes were lost unnoticed, and leave the cluster if this joined it."""
        self._end(list(self._flying))
        if self._nodes and ray.is_initialized():
            with contextlib.suppress(RayError, ConnectionError, ValueError):
                self._look(now=True, meet=False)
        if self._mine and ray.is_initialized():
            ray.shutdown()

    def _end(self, refs: Sequence[Any]) -> None:
        for ref in refs:
            self._flying.pop(ref, None)
            with contextlib.suppress(RayError, ConnectionError, ValueError):
                ray.cancel(ref, force=True)

    # --- jobs

    def foresee(self, work: _Work, askings: Iterable[Asking]) -> None:
        """Put what is asked for in the queue, and start what can be started."""
        for asking in askings:
            self._advance(work, asking, None)
        self._start()

    def take(self, work: _Work, job: Job) -> Any | None:
        """The result of a job, waited for; none when no node is left that could do it.

        Raises:
            HeadwayError: it was given up.
        """
        if job.key not in work.done and not self._flies(work, job.key):
            work.waiting = {job.key: job, **{key: other for key, other in work.waiting.items() if key != job.key}}
        self._works.sort(key=lambda other: other is not work)
        while job.key not in work.done:
            self._look()
            self._start()
            if not self._flies(work, job.key) and not self._able(work.alone):
                work.waiting.pop(job.key, None)
                self._forsake()
                return None
            if self._flying:
                self._settle()
            elif job.key not in work.done:
                time.sleep(PAUSE_S)
        result = work.done.pop(job.key)
        self._start()
        if isinstance(result, HeadwayError):
            raise result
        return result

    def _flies(self, work: _Work, key: str) -> bool:
        return any(flight.work is work and flight.job.key == key for flight in self._flying.values())

    def _able(self, alone: bool) -> bool:
        """Whether some node could do such work, now or after a rest."""
        return any(node.like or not alone for node in self._nodes.values())

    def _forsake(self) -> None:
        if not self._nodes and not self._forsaken:
            self._forsaken = True
            self._say("no node of the cluster is left: what remained was done by this process")

    def _advance(self, work: _Work, asking: Asking, briefs: list[Any] | None) -> None:
        """Let one who foresees ask for more, until something it asks for is not known yet."""
        with contextlib.suppress(StopIteration):
            jobs = list(next(asking) if briefs is None else asking.send(briefs))
            while all(job.key in work.briefs for job in jobs):
                jobs = list(asking.send([work.briefs[job.key] for job in jobs]))
            for job in jobs:
                if job.key not in work.briefs and job.key not in work.waiting and not self._flies(work, job.key):
                    work.waiting[job.key] = job
            work.askings.append((asking, [job.key for job in jobs]))

    def _start(self) -> None:
        """Start jobs, in the order of their queues, while there is a node for one."""
        for work in self._works:
            while work.waiting and (node := self._free(work.alone)) is not None:
                job = work.waiting.pop(next(iter(work.waiting)))
                file = None if job.file is None else (job.file.name, [self._file(job.file)])
                where = NodeAffinitySchedulingStrategy(node.identity, soft=False)
                options = {"scheduling_strategy": where, "num_cpus": node.all_cpus if work.alone else node.cpus, "max_retries": 0}
                ref = _done_there.options(**options).remote(work.task, work.shared, work.key, job.item, file, work.alone)
                self._flying[ref] = _Flight(work, job, node)

    def _free(self, alone: bool) -> Node | None:
        """The node for the next job: of those that measure nothing and have room, the one with the smallest share of its places taken."""
        rest = {node for node, until in self._resting.items() if time.monotonic() < until}
        here = Counter(flight.node.identity for flight in self._flying.values())
        busy = Counter(flight.node.machine for flight in self._flying.values())
        measured = {flight.node.machine for flight in self._flying.values() if flight.work.alone}
        able = [
            node
            for node in self._nodes.values()
            if node.identity not in rest
            and node.machine not in measured
            and ((node.like and not busy[node.machine]) if alone else here[node.identity] < node.places)
        ]
        return min(able, key=lambda node: here[node.identity] / node.places, default=None)

    def _file(self, path: Path) -> Any:
        if path not in self._files:
            self._files[path] = ray.put(path.read_bytes())
        return self._files[path]

    def _settle(self) -> None:
        """Wait a while for one job to end, and take what has ended."""
        ready, _ = ray.wait(list(self._flying), timeout=LOOK_S / 2)
        for ref in ready:
            flight = self._flying.pop(ref)
            try:
                result = ray.get(ref)
            except RayTaskError:
                raise
            except RayError as error:
                self._lose(flight, error)
                continue
            self._done(flight, result)

    def _done(self, flight: _Flight, result: Any) -> None:
        work, key = flight.work, flight.job.key
        self._count += 1
        waiting = sum(len(other.waiting) for other in self._works)
        self._step(f"{flight.node.address}: {key} ({len(self._flying)} at work on {len(self._nodes)} nodes, {waiting} waiting)")
        work.briefs[key] = work.brief(result)
        work.done[key] = work.keep(result)
        due = [entry for entry in work.askings if all(asked in work.briefs for asked in entry[1])]
        for asking, keys in due:
            work.askings.remove((asking, keys))
            self._advance(work, asking, [work.briefs[asked] for asked in keys])

    def _lose(self, flight: _Flight, error: RayError) -> None:
        """A job whose process or node ended is the next to be started again, elsewhere if its node is gone."""
        work, job, node = flight.work, flight.job, flight.node
        self._resting[node.identity] = time.monotonic() + REST_S
        self._look(now=True)
        if node.identity in self._nodes:
            work.deaths[job.key] += 1
        if work.deaths[job.key] >= MOST_DEATHS:
            reason = str(error).partition("\n")[0]
            work.done[job.key] = HeadwayError(f"{MOST_DEATHS} processes on the cluster ended while they did this, the last with: {reason}")
            return
        if work in self._works:
            work.waiting = {job.key: job, **work.waiting}

    # --- nodes

    def _look(self, *, now: bool = False, meet: bool = True) -> None:
        """Read the list of nodes, if it was not read just now: say which were lost, meet the new ones."""
        if not now and time.monotonic() - self._looked_s < LOOK_S:
            return
        self._looked_s = time.monotonic()
        there = living()
        for identity in [known for known in self._nodes if known not in there]:
            node = self._nodes.pop(identity)
            self._lost.add(identity)
            self._say(f"the node {node.address} of the cluster was lost: its work was done again on the {len(self._nodes)} others")
        if meet:
            self._meet(there, refuse=False)

    def _say(self, sentence: str) -> None:
        self._notes.append(sentence)
        self._note(sentence)

    def _meet(self, there: dict[str, dict[str, Any]], *, refuse: bool) -> None:
        """Ask every node that is not known what it is.

        Raises:
            ConfigError: with ``refuse``, one that cannot be used; without, such a node is left out.
        """
        asked = {
            identity: told_there.options(scheduling_strategy=NodeAffinitySchedulingStrategy(identity, soft=False), num_cpus=0).remote()
            for identity in there
            if identity not in self._nodes and identity not in self._lost
        }
        for identity, ref in asked.items():
            address = f"{there[identity]['NodeManagerAddress']}:{there[identity]['NodeManagerPort']}"
            try:
                self._welcome(identity, address, float(there[identity]["Resources"]["CPU"]), ray.get(ref, timeout=ANSWER_S))
            except TaskUnschedulableError:  # it has just gone
                continue
            except (RayError, ConfigError) as error:
                reason = str(error) if isinstance(error, ConfigError) else f"must be able to run Headway, got: {last_line(error)}"
                if refuse:
                    raise ConfigError(f"--on: the node {address} {reason}. Install the same packages on every node.") from error
                self._lost.add(identity)
                self._say(f"the node {address} that joined the cluster is left out: it {reason}")

    def _welcome(self, identity: str, address: str, cpus: float, other: Told) -> None:
        """A node that was met.

        Raises:
            ConfigError: its versions are not this process's.
        """
        unlike = differences(self._own, other)
        if unlike:
            raise ConfigError(f"must hold the same versions as this process, got {unlike}")
        mine, its = self._own.environment, other.environment
        like = (its.cpu, its.instruction_sets, its.cores) == (mine.cpu, mine.instruction_sets, mine.cores)
        one = min(float(mine.cores), cpus)
        self._nodes[identity] = Node(identity, address, other.machine, like, max(1, int(cpus // one)), one, cpus)
        if not like:
            self._say(
                f"the node {address} ({its.cpu}, {its.cores} cores) is not like this machine ({mine.cpu}, {mine.cores} cores): it makes variants and measures none"
            )


class _Ahead:
    """Jobs of one kind on a cluster."""

    def __init__(self, place: OnRay, work: _Work) -> None:
        self._place, self._work = place, work

    def foresee(self, askings: Iterable[Asking]) -> None:
        """Take note of what will be asked for."""
        self._place.foresee(self._work, askings)

    def take(self, job: Job) -> Any | None:
        """The result of a job; none when no node is left."""
        return self._place.take(self._work, job)


# --- on the nodes

_OPENED: deque[tuple[str, Any]] = deque(maxlen=4)
"""What jobs share, in this process of a node: opened once."""


@ray.remote(max_retries=0)
def _done_there(task: Task, shared: list[Any], key: str, item: Any, file: tuple[str, list[Any]] | None, alone: bool) -> Any:
    """One job, done by this process of a node when its machine can be had."""
    needed = _opened(shared, key)
    with tempfile.TemporaryDirectory(prefix="headway-") as folder:
        path = None
        if file is not None:
            path = Path(folder) / file[0]
            path.write_bytes(ray.get(file[1][0]))
        with held(alone=alone):
            return task(needed, item, path)


def _opened(shared: list[Any], key: str) -> Any:
    for known, value in _OPENED:
        if known == key:
            return value
    value = ray.get(shared[0])
    _OPENED.append((key, value))
    return value
