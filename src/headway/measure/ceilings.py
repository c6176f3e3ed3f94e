"""What this machine attains: FLOP/s by precision, memory bandwidth, and the cost of one call. Measured once, then cached.

These are attainable rates through the runtimes that serve, not the processor's data sheet: a roofline drawn with them is one that
a model can reach.
"""

from __future__ import annotations

import hashlib
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from headway.measure.environment import environment
from headway.records import Ceilings, HeadwayError, Plan, RecordError, from_json, to_json
from headway.runtime import open_session, runtimes

SIZE = 1024
SECONDS = 0.35
STREAM_BYTES = 256 * 2**20


def measure_ceilings(folder: Path | None = None, *, refresh: bool = False) -> Ceilings:
    """Ceilings of this machine, from the cache or measured (about five seconds).

    Args:
        folder: cache folder; by default the user's.
    """
    folder = folder or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headway"
    here = environment()
    key = hashlib.sha256(repr((here.cpu, here.cores, sorted(here.versions.items()))).encode()).hexdigest()[:16]
    file = folder / f"ceilings-{key}.json"
    if file.is_file() and not refresh:
        try:
            return from_json(file.read_bytes(), Ceilings, str(file))
        except RecordError:
            file.unlink()
    ceilings = _measure(here.cores)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f".{os.getpid()}.part")
        part.write_bytes(to_json(ceilings))
        part.replace(file)
    except OSError:
        pass  # a cache that cannot be written only costs the next run five seconds
    return ceilings


def _measure(cores: int) -> Ceilings:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        graphs = {"float32": _matmul(folder, "float32"), "int8": _quantized_matmul(folder), "bfloat16": _matmul(folder, "bfloat16")}
        one = _rates(graphs, 1)
        every = _rates(graphs, cores) if cores > 1 else one
        overhead = _overhead(folder)
    return Ceilings(
        flop_per_s=every,
        flop_per_s_one_thread=one,
        bytes_per_s=_bandwidth(cores),
        bytes_per_s_one_thread=_bandwidth(1),
        overhead_s=overhead,
    )


def _rates(graphs: Mapping[str, Path], threads: int) -> dict[str, float]:
    """Attained FLOP/s by precision: the better of the runtimes that honour the graph."""
    rates: dict[str, float] = {}
    feeds = {"x": np.random.default_rng(0).standard_normal((SIZE, SIZE)).astype(np.float32)}
    for precision, path in graphs.items():
        for runtime in runtimes().present:
            if runtime == "null":
                continue
            try:
                session = open_session(Plan(runtime=runtime, threads=threads), path)
            except HeadwayError:
                continue
            seconds = _median_s(lambda session=session: session.run(feeds))
            session.close()
            rates[precision] = max(rates.get(precision, 0.0), 2.0 * SIZE**3 / seconds)
    return rates


def _median_s(call: Callable[[], object]) -> float:
    for _ in range(2):
        call()
    times: list[float] = []
    ends = time.perf_counter() + SECONDS
    while time.perf_counter() < ends or len(times) < 3:
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _bandwidth(threads: int) -> float:
    """Bytes read and written a second by copies far larger than a cache [B/s]."""
    size = STREAM_BYTES // threads // 8
    pairs = [(np.ones(size), np.ones(size)) for _ in range(threads)]

    def copy_all() -> None:
        workers = [threading.Thread(target=np.copyto, args=pair) for pair in pairs]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    return 2.0 * size * 8 * threads / _median_s(copy_all)


def _overhead(folder: Path) -> float:
    """t0: one call of ONNX Runtime on a graph of one addition [s]."""
    path = _save(folder / "add.onnx", [helper.make_node("Add", ["x", "x"], ["y"])], [], columns=8)
    session = open_session(Plan(runtime="onnx_runtime"), path)
    feeds = {"x": np.zeros((1, 8), dtype=np.float32)}
    seconds = _median_s(lambda: session.run(feeds))
    session.close()
    return seconds


def _matmul(folder: Path, precision: str) -> Path:
    weights = np.random.default_rng(1).standard_normal((SIZE, SIZE)).astype(np.float32)
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    return _save(folder / f"{precision}.onnx", [node], [numpy_helper.from_array(weights, "w")], precision=precision)


def _quantized_matmul(folder: Path) -> Path:
    weights = np.random.default_rng(1).integers(-127, 127, (SIZE, SIZE)).astype(np.int8)
    constants = {
        "w": weights, "ws": np.float32(0.01), "wz": np.int8(0), "xs": np.float32(0.05), "xz": np.uint8(128), "ys": np.float32(1.0), "yz": np.uint8(128),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
        helper.make_node("QLinearMatMul", ["xq", "xs", "xz", "w", "ws", "wz", "ys", "yz"], ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "ys", "yz"], ["y"]),
    ]
    return _save(folder / "int8.onnx", nodes, [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()])


def _save(
    path: Path, nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto], *, columns: int = SIZE, precision: str = "float32"
) -> Path:
    shape = ["n", columns]
    graph = helper.make_graph(
        nodes, "ceiling", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)], [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        constants,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    if precision != "float32":
        helper.set_model_props(model, {"headway.precision": precision})
    onnx.save(model, str(path))
    return path
