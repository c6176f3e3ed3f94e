"""What this machine attains: FLOP/s by precision, memory bandwidth, and the cost of one call. Measured once, then cached.

These are attainable rates through the runtimes that serve, not the processor's data sheet: a roofline drawn with them is one that
a model can reach. Each is the best of repeated runs, as in McCalpin's STREAM: a neighbour can only make a run slower, and a lower
bound of a service time must be drawn from what the machine can do.
"""

from __future__ import annotations

import functools
import hashlib
import os
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from headway.measure.environment import environment
from headway.records import Ceilings, Environment, HeadwayError, MeasurementError, Plan, RecordError, from_json, to_json
from headway.runtime import open_session, runtimes

FORMAT = 2
"""Counts up when the way of measuring changes, so that figures of an older way are not used."""
SIZE = 768
DEPTH = 4
"""The product that is timed: ``DEPTH`` square matrices of ``SIZE`` in a row, so that conversions at the two ends weigh little."""
SECONDS = 0.2
STREAM_BYTES = 256 * 2**20
"""Bytes that one round of copying reads, far more than a last-level cache holds [B]."""
LIBRARIES = ("onnxruntime", "openvino", "numpy")


def measure_ceilings(folder: Path | None = None, *, refresh: bool = False) -> Ceilings:
    """Ceilings of this machine, from the cache or measured (about five seconds).

    Args:
        folder: cache folder; by default the user's. The file's name holds the processor, the cores and the libraries' versions.
        refresh: measure even if the cache knows.

    Raises:
        MeasurementError: no runtime could run a float32 product.
    """
    folder = folder or cache_folder()
    here = environment()
    file = folder / f"ceilings-{_key(here)}.json"
    if not refresh:
        try:
            return from_json(file.read_bytes(), Ceilings, str(file))
        except (RecordError, OSError):
            pass  # not there, or damaged: written anew below
    ceilings = measure(here.cores)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f".{os.getpid()}.part")
        part.write_bytes(to_json(ceilings))
        part.replace(file)
    except OSError:
        pass  # a cache that cannot be written only costs the next run five seconds
    return ceilings


def cache_folder() -> Path:
    """Headway's folder in the user's cache (``XDG_CACHE_HOME``, or ``~/.cache``)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headway"


def _key(here: Environment) -> str:
    facts = (FORMAT, here.cpu, here.instruction_sets, here.cores, [here.versions.get(name, "") for name in LIBRARIES])
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def measure(cores: int) -> Ceilings:
    """Ceilings for one thread and for ``cores``, measured now.

    Raises:
        MeasurementError: no runtime could run a float32 product.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        graphs = {
            "float32": _products(folder / "float32.onnx"),
            "int8": _quantized_products(folder / "int8.onnx"),
            "bfloat16": _products(folder / "bfloat16.onnx", precision="bfloat16"),
        }
        one = _rates(graphs, 1)
        every = _at_least(_rates(graphs, cores), one) if cores > 1 else one
        overhead_s = _overhead_s(folder / "add.onnx")
    bytes_one = _bandwidth(1)
    bytes_all = max(_bandwidth(cores), bytes_one) if cores > 1 else bytes_one
    return Ceilings(
        flop_per_s=every, flop_per_s_one_thread=one, bytes_per_s=bytes_all, bytes_per_s_one_thread=bytes_one, overhead_s=overhead_s
    )


def _at_least(rates: Mapping[str, float], floor: Mapping[str, float]) -> dict[str, float]:
    """All cores attain what one does: a lower figure is a neighbour that took the others while they were timed."""
    return {precision: max(rates.get(precision, 0.0), rate) for precision, rate in floor.items()}


def _rates(graphs: Mapping[str, Path], threads: int) -> dict[str, float]:
    """Attained FLOP/s by precision: the best of the runtimes that honour the graph; a precision that none honours is left out.

    Runtimes that must be asked for are not timed.
    """
    rates: dict[str, float] = {}
    feeds = {"x": np.random.default_rng(0).standard_normal((SIZE, SIZE)).astype(np.float32)}
    for precision, path in graphs.items():
        for runtime, module in runtimes().present.items():
            if getattr(module, "ASKED", False):
                continue
            try:
                session = open_session(Plan(runtime=runtime, threads=threads), path)
            except HeadwayError:
                continue
            seconds = _best_s(functools.partial(session.run, feeds))
            session.close()
            rates[precision] = max(rates.get(precision, 0.0), 2.0 * DEPTH * SIZE**3 / seconds)
    if "float32" not in rates:
        raise MeasurementError(f"some runtime must run a float32 product, got none of {sorted(runtimes().present)}; run: headway doctor")
    return rates


def _best_s(call: Callable[[], object]) -> float:
    """The shortest of repeated calls [s]; two of them warm up."""
    for _ in range(2):
        call()
    best_s, runs, ends = float("inf"), 0, time.perf_counter() + SECONDS
    while time.perf_counter() < ends or runs < 3:
        began = time.perf_counter()
        call()
        best_s = min(best_s, time.perf_counter() - began)
        runs += 1
    return best_s


def _bandwidth(threads: int) -> float:
    """Bytes read and written a second by copies far larger than a cache [B/s]. What a store reads first is not counted."""
    size = STREAM_BYTES // threads // 8
    pairs = [(np.ones(size), np.ones(size)) for _ in range(threads)]

    def copy_all() -> None:
        workers = [threading.Thread(target=np.copyto, args=pair) for pair in pairs[1:]]
        for worker in workers:
            worker.start()
        np.copyto(*pairs[0])
        for worker in workers:
            worker.join()

    return 2.0 * size * 8 * threads / _best_s(copy_all)


def _overhead_s(path: Path) -> float:
    """t0: one call of ONNX Runtime on a graph of one addition [s]."""
    _save(path, [helper.make_node("Add", ["x", "x"], ["y"])], {}, columns=8)
    session = open_session(Plan(runtime="onnx_runtime"), path)
    feeds = {"x": np.zeros((1, 8), dtype=np.float32)}
    seconds = _best_s(lambda: session.run(feeds))
    session.close()
    return seconds


def _products(path: Path, *, precision: str = "float32") -> Path:
    rng = np.random.default_rng(1)
    weights = {f"w{i}": (rng.standard_normal((SIZE, SIZE)) / SIZE**0.5).astype(np.float32) for i in range(DEPTH)}
    values = ["x", *(f"v{i}" for i in range(1, DEPTH)), "y"]
    nodes = [helper.make_node("MatMul", [values[i], f"w{i}"], [values[i + 1]]) for i in range(DEPTH)]
    return _save(path, nodes, weights, precision=precision)


def _quantized_products(path: Path) -> Path:
    """The same with quantize/dequantize nodes: unsigned activations, signed weights, as the 8-bit kernels of x86 want them."""
    rng = np.random.default_rng(1)
    scale = 3.0 / 127 / SIZE**0.5
    constants: dict[str, np.ndarray] = {f"w{i}": rng.integers(-127, 128, (SIZE, SIZE)).astype(np.int8) for i in range(DEPTH)}
    constants |= {
        "ws": np.array(scale, np.float32),
        "wz": np.array(0, np.int8),
        "s": np.array(0.05, np.float32),
        "z": np.array(128, np.uint8),
    }
    nodes = [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q0"]), helper.make_node("DequantizeLinear", ["q0", "s", "z"], ["d0"])]
    for i in range(DEPTH):
        nodes += [
            helper.make_node("DequantizeLinear", [f"w{i}", "ws", "wz"], [f"f{i}"]),
            helper.make_node("MatMul", [f"d{i}", f"f{i}"], [f"m{i}"]),
            helper.make_node("QuantizeLinear", [f"m{i}", "s", "z"], [f"q{i + 1}"]),
            helper.make_node("DequantizeLinear", [f"q{i + 1}", "s", "z"], ["y" if i == DEPTH - 1 else f"d{i + 1}"]),
        ]
    return _save(path, nodes, constants)


def _save(
    path: Path, nodes: list[onnx.NodeProto], constants: Mapping[str, np.ndarray], *, columns: int | None = None, precision: str = "float32"
) -> Path:
    shape: list[str | int | None] = ["n", columns or SIZE]
    graph = helper.make_graph(
        nodes, "ceiling", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)], [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    if precision != "float32":
        helper.set_model_props(model, {"headway.precision": precision})
    onnx.save(model, str(path))
    return path
