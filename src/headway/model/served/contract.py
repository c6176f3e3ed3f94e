"""What a file in this folder offers: whether a path is its server's, and what lies there.

The file's name is the server's scheme, and the suffix of its archive where it has one; there is no list to edit.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from headway.records import ModelError, Plan, TensorSpec

RUNTIME = "onnx_runtime"
MOST_INSTANCES = 1024
MOST_THREADS = 1024
MOST_BATCH = 65536
LONGEST_WAIT_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedBy:
    """How another server ran a model, by its configuration.

    Attributes:
        server: its name.
        instances: copies of the model that run at the same time; none: not said.
        threads: threads inside one; none: not said.
        max_batch: the largest batch that it forms of several requests; 1: requests run alone.
        max_wait_s: the longest wait for a fuller batch [s].
        preferred: batch sizes that it does not wait beyond.
        device: ``cpu``, or what the configuration asks for.
    """

    server: str
    instances: int | None = None
    threads: int | None = None
    max_batch: int = 1
    max_wait_s: float = 0.0
    preferred: tuple[int, ...] = ()
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Refuse numbers that no server could mean.

        Raises:
            ModelError: a number out of range.
        """
        limits = {
            "instances": (self.instances, MOST_INSTANCES),
            "threads": (self.threads, MOST_THREADS),
            "largest batch": (self.max_batch, MOST_BATCH),
        }
        for name, (number, most) in limits.items():
            if number is not None and not 1 <= number <= most:
                raise ModelError(f"{self.server}: {name} must be from 1 to {most}, got {number}; correct the configuration")
        if not 0 <= self.max_wait_s <= LONGEST_WAIT_S:
            raise ModelError(
                f"{self.server}: the wait for a batch must be from 0 to {LONGEST_WAIT_S:g} s, got {self.max_wait_s:g} s; "
                "correct the configuration"
            )

    def plan(self, cores: int, runtime: str = RUNTIME) -> Plan:
        """The same in Headway's words, to compete as it is today.

        What the configuration does not say becomes one instance, and as many threads as there are cores, which runtimes take by default.
        Preferred sizes have no counterpart.
        """
        return Plan(
            runtime=runtime, instances=self.instances or 1, threads=self.threads or max(1, cores), max_batch=self.max_batch,
            max_wait_s=self.max_wait_s,
        )  # fmt: skip

    def __str__(self) -> str:
        """One sentence without a full stop."""
        count = "instances as by its default" if self.instances is None else f"{self.instances} instance{'s' if self.instances > 1 else ''}"
        where = "" if self.device == "cpu" else f" on {self.device}"
        inner = f" of {self.threads} thread{'s' if self.threads > 1 else ''}" if self.threads else ""
        return f"{self.server} served it with {count}{inner}{where}, {self._batches()}"

    def _batches(self) -> str:
        if self.max_batch == 1:
            return "each request alone"
        sizes = f" (preferred: {', '.join(map(str, self.preferred))})" if self.preferred else ""
        wait = f"waiting up to {_time(self.max_wait_s)}" if self.max_wait_s else "without waiting for more"
        return f"batches of up to {self.max_batch}{sizes}, {wait}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Inside:
    """The model that lies in a server's folder or archive.

    Attributes:
        door: ``onnx``, or the name of the door that opens it.
        path: the model, in the folder itself or in the place that ``find`` was given.
        name: a short name for people; empty: that of the folder or archive.
        served_by: how it was served, where a configuration says it.
        inputs, outputs: what the configuration says of the model's tensors; empty: nothing.
        positional: whether the names of these only stand for places (TorchScript in Triton), so that they are not the graph's.
        labels: names of the classes.
        notes: for people.
    """

    door: str
    path: Path
    name: str = ""
    served_by: ServedBy | None = None
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    positional: bool = False
    labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Form(Protocol):
    """What a file in this folder offers.

    Attributes:
        LOOKS_LIKE: what must be there for the path to be this server's, in a few words.
    """

    LOOKS_LIKE: str

    def fits(self, folder: Path) -> bool:
        """Whether an existing folder looks so; it does not have to be right in all."""
        ...

    def find(self, source: Path, place: Path) -> Inside:
        """What lies in a folder or archive; ``place`` is an empty folder for files that must be unpacked.

        Raises:
            ModelError: nothing that can be taken, or something that cannot be trusted; the message says what to do.
        """
        ...


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:g} ms" if seconds >= 1e-3 else f"{round(seconds * 1e6, 3):g} us"
