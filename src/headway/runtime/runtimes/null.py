"""A runtime with known service times, for testing everything above it: tau(b) = tau0 + alpha b, and answers that can be checked.

Its "graph" is a JSON file ``NAME.null.json``::

    {"tau0_s": 0.002, "alpha_s": 0.001, "inputs": [{"name": "x", "dtype": "float32", "shape": ["n", 3]}],
     "outputs": [{"name": "y", "dtype": "float32", "shape": ["n", 1]}]}

Every output row holds the sum of that row over all inputs. The time is slept, so the interpreter is free, as in a real runtime.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np

from headway.records import ConfigError, DataError, ModelError, TensorSpec
from headway.runtime.session import check_feeds

DEVICES = ("cpu",)
SUFFIX = ".null.json"
SPIN_S = 100e-6
"""The last stretch of a wait is spun, since a sleep wakes up late [s]."""


class _Tensor(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    dtype: str
    shape: list[int | str]


class _Graph(msgspec.Struct, forbid_unknown_fields=True):
    tau0_s: float
    alpha_s: float
    inputs: list[_Tensor]
    outputs: list[_Tensor]


def versions() -> dict[str, str]:
    """Nothing: there is no library behind it."""
    return {}


def refuse(path: Path, *, device: str = "cpu") -> str | None:
    """Why the file is not a null graph; none when it is."""
    try:
        _read(path)
    except ModelError as error:
        return str(error)
    return None


def open_session(path: Path, *, threads: int, device: str = "cpu") -> NullSession:
    """A session that takes the stated times; ``threads`` changes nothing.

    Raises:
        ConfigError: threads below one. ModelError: the file is not a null graph.
    """
    if threads < 1:
        raise ConfigError(f"threads must be at least 1, got {threads}")
    return NullSession(_read(path))


class NullSession:
    """Sleeps tau(b) and sums rows."""

    def __init__(self, graph: _Graph) -> None:
        self._graph = graph
        self.inputs = tuple(TensorSpec(name=t.name, dtype=t.dtype, shape=tuple(t.shape)) for t in graph.inputs)
        self.outputs = tuple(TensorSpec(name=t.name, dtype=t.dtype, shape=tuple(t.shape)) for t in graph.outputs)

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Row sums by output name, after tau(b)."""
        ends_s = time.perf_counter()
        check_feeds(self.inputs, feeds)
        rows = len(next(iter(feeds.values())))
        if any(len(array) != rows for array in feeds.values()):
            raise DataError(f"all inputs must have the same number of rows, got { ({name: len(array) for name, array in feeds.items()}) }")
        ends_s += self._graph.tau0_s + self._graph.alpha_s * rows
        sums = sum(array.reshape(rows, -1).sum(axis=1, dtype=np.float64) for array in feeds.values())
        outputs = {spec.name: _fill(spec, rows, np.asarray(sums)) for spec in self.outputs}
        left_s = ends_s - time.perf_counter()
        if left_s > SPIN_S:
            time.sleep(left_s - SPIN_S)
        while time.perf_counter() < ends_s:
            pass
        return outputs

    def close(self) -> None:
        """Nothing to let go of."""


def _fill(spec: TensorSpec, rows: int, sums: np.ndarray) -> np.ndarray:
    shape = (rows, *(size if isinstance(size, int) else 1 for size in spec.shape[1:]))
    wide = sums.reshape(rows, *(1 for _ in shape[1:]))
    return np.broadcast_to(wide, shape).astype(spec.dtype)


def _read(path: Path) -> _Graph:
    if not path.name.endswith(SUFFIX):
        raise ModelError(f"{path}: the null runtime runs files named NAME{SUFFIX}, and this is another file")
    try:
        graph = msgspec.json.decode(path.read_bytes(), type=_Graph)
        for tensor in (*graph.inputs, *graph.outputs):
            np.dtype(tensor.dtype)
    except (OSError, TypeError, msgspec.DecodeError) as error:
        raise ModelError(f"{path}: must be a null graph, got: {error}") from error
    if graph.tau0_s < 0 or graph.alpha_s < 0 or not graph.inputs or not graph.outputs:
        raise ModelError(f"{path}: a null graph needs times of at least 0 and at least one input and output")
    if not all(tensor.shape for tensor in (*graph.inputs, *graph.outputs)):
        raise ModelError(f"{path}: every shape of a null graph must begin with the rows, got one without dimensions")
    return graph
