"""The contract of a runtime, as tests. Any runtime that reads ONNX earns them all with three lines::

    class TestMine(RuntimeContract):
        @pytest.fixture(scope="class")
        @classmethod
        def runtime(cls): return my_runtime

The suite runs every graph of ``small_graphs`` against the ONNX reference evaluator in float64. A runtime with graphs of its own gives
the fixture ``case`` instead. It checks answers and good behaviour, never speed.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from headway.records import ConfigError, DataError, ModelError, TensorSpec, Unsupported
from headway.runtime import Session
from headway.testing.small_graphs import GRAPHS, samples

ROWS = 8
ROUNDS = 20
EXACT = 1e-5
"""Largest error of float32 against float64, relative to the largest answer: float32 gives 1e-6, bfloat16 some 1e-3."""
NARROW = 0.1
"""The same for a graph that asks for bfloat16 or float16."""


class Runtime(Protocol):
    """What a runtime's file holds."""

    DEVICES: tuple[str, ...]

    def versions(self) -> dict[str, str]:
        """Versions of the libraries behind it."""

    def refuse(self, path: Path, *, device: str = "cpu") -> str | None:
        """Why it cannot honour a graph; none when it can."""

    def open_session(self, path: Path, *, threads: int, device: str = "cpu") -> Session:
        """A session."""


@dataclass(frozen=True)
class Case:
    """A graph on disk, ``ROWS`` rows of inputs for it, and the right answers."""

    path: Path
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    feeds: Mapping[str, np.ndarray]
    answers: Mapping[str, np.ndarray]

    def rows(self, start: int, count: int) -> dict[str, np.ndarray]:
        """Some rows of the inputs."""
        return {name: array[start : start + count] for name, array in self.feeds.items()}


def outputs_behind_identity() -> ModelProto:
    """Two outputs out of alphabetical order, one an integer, one only another name of an inner value, as exporters write them."""
    weights = numpy_helper.from_array(np.random.default_rng(6).normal(0, 1, (4, 3)).astype(np.float32), "w")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a_hidden"]),
        helper.make_node("Identity", ["a_hidden"], ["y"]),
        helper.make_node("ArgMax", ["a_hidden"], ["best"], axis=1, keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3]), helper.make_tensor_value_info("best", TensorProto.INT64, ["n"])],
        [weights],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


RUNTIME_GRAPHS = {**GRAPHS, "outputs_behind_identity": outputs_behind_identity}


def in_float64(proto: ModelProto) -> ModelProto:
    """The graph with every float32 value, weight and constant in float64, for reference answers."""
    wide = ModelProto()
    wide.CopyFrom(proto)
    constants = [attribute.t for node in wide.graph.node for attribute in node.attribute if attribute.type == onnx.AttributeProto.TENSOR]
    for tensor in [*wide.graph.initializer, *constants]:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    for value in [*wide.graph.input, *wide.graph.output]:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    for opset in wide.opset_import:
        opset.version = max(opset.version, 15)  # below, the evaluator's batch norm takes the batch's own statistics, as in training
    return wide


@functools.cache
def expected(graph: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Inputs of ``ROWS`` rows for a graph of ``RUNTIME_GRAPHS``, and its answers computed in float64."""
    proto = RUNTIME_GRAPHS[graph]()
    feeds = samples(proto, ROWS)
    wide = {name: array.astype(np.float64) for name, array in feeds.items()}
    answers = ReferenceEvaluator(in_float64(proto)).run(None, wide)
    return feeds, dict(zip([value.name for value in proto.graph.output], answers, strict=True))


def onnx_case(graph: str, folder: Path) -> Case:
    """A graph of ``RUNTIME_GRAPHS`` written to a folder, with its reference answers."""
    proto = RUNTIME_GRAPHS[graph]()
    path = folder / f"{graph}.onnx"
    onnx.save(proto, str(path))
    feeds, answers = expected(graph)
    fixed = {tensor.name for tensor in proto.graph.initializer}
    inputs = tuple(_spec(value) for value in proto.graph.input if value.name not in fixed)
    return Case(path, inputs, tuple(_spec(value) for value in proto.graph.output), feeds, answers)


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    kind = value.type.tensor_type
    shape = tuple(axis.dim_value if axis.HasField("dim_value") else axis.dim_param for axis in kind.shape.dim)
    return TensorSpec(name=value.name, dtype=helper.tensor_dtype_to_np_dtype(kind.elem_type).name, shape=shape)


def error_of(got: Mapping[str, np.ndarray], answers: Mapping[str, np.ndarray], start: int = 0) -> float:
    """Largest difference of any output from the answers from row ``start`` on, relative to the largest answer."""
    worst = 0.0
    for name, array in got.items():
        right = np.asarray(answers[name], dtype=np.float64)[start : start + len(array)]
        assert array.shape == right.shape, f"output {name!r} must have the shape {right.shape}, got {array.shape}"
        assert np.isfinite(array).all(), f"output {name!r} is not finite"
        worst = max(worst, float(np.abs(array - right).max()) / max(float(np.abs(right).max()), 1e-9))
    return worst


def is_sentence(text: str | None) -> bool:
    """Whether a reason is one line that a person can read."""
    return bool(text) and "\n" not in str(text) and "Traceback" not in str(text)


class RuntimeContract:
    """Subclass it and give the fixture ``runtime``; ``case`` may be overridden for a runtime with graphs of its own.

    Attributes:
        reads_onnx: whether the tests on graphs that ask for a narrower precision apply.
    """

    reads_onnx = True

    @pytest.fixture(scope="class")
    @classmethod
    def runtime(cls) -> Runtime:
        """The module under test."""
        raise NotImplementedError("a subclass must give the fixture 'runtime': the module under test")

    @pytest.fixture(scope="class", params=sorted(RUNTIME_GRAPHS))
    @classmethod
    def case(cls, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
        """A graph with inputs and right answers."""
        return onnx_case(request.param, tmp_path_factory.mktemp("runtime"))

    def test_it_says_what_it_is(self, runtime: Runtime) -> None:
        assert (runtime.__doc__ or "").strip(), "the module needs a docstring: its first line is shown by `headway doctor`"
        assert runtime.DEVICES and all(isinstance(device, str) for device in runtime.DEVICES)
        assert all(isinstance(name, str) and version for name, version in runtime.versions().items())

    def test_names_types_and_order_are_the_graph_s(self, runtime: Runtime, case: Case) -> None:
        assert runtime.refuse(case.path) is None
        session = runtime.open_session(case.path, threads=1)
        for got, stated in ((session.inputs, case.inputs), (session.outputs, case.outputs)):
            assert [(spec.name, spec.dtype) for spec in got] == [(spec.name, spec.dtype) for spec in stated]
            for one, other in zip(got, stated, strict=True):
                assert len(one.shape) == len(other.shape)
                assert all(isinstance(size, str) or size == right for size, right in zip(one.shape, other.shape, strict=True))
                assert isinstance(one.shape[0], str), f"the batch of {one.name!r} must stay free, got {one.shape}"
        results = session.run(case.rows(0, 2))
        assert list(results) == [spec.name for spec in session.outputs]
        assert [array.dtype.name for array in results.values()] == [spec.dtype for spec in session.outputs]
        session.close()

    @pytest.mark.parametrize("threads", [1, 2])
    def test_answers_are_right_at_every_batch_size(self, runtime: Runtime, case: Case, threads: int) -> None:
        session = runtime.open_session(case.path, threads=threads)
        for rows in range(1, ROWS + 1):
            for start in (0, ROWS - rows):
                error = error_of(session.run(case.rows(start, rows)), case.answers, start)
                assert error < EXACT, f"answers must be float32's, off by {error:.2g} at {rows} rows: is a narrower type at work?"
        session.close()

    def test_outputs_are_not_overwritten_and_inputs_not_touched(self, runtime: Runtime, case: Case) -> None:
        session = runtime.open_session(case.path, threads=1)
        feeds, others = case.rows(0, 2), case.rows(2, 2)
        before = {name: array.copy() for name, array in feeds.items()}
        first = session.run(feeds)
        kept = {name: array.copy() for name, array in first.items()}
        for _ in range(3):
            session.run(others)
        session.close()
        for name, array in first.items():
            np.testing.assert_array_equal(array, kept[name], err_msg=f"output {name!r} was overwritten by a later run")
        for name, array in feeds.items():
            np.testing.assert_array_equal(array, before[name], err_msg=f"input {name!r} was written to")

    def test_inputs_may_lie_in_memory_as_they_like(self, runtime: Runtime, case: Case) -> None:
        session = runtime.open_session(case.path, threads=1)
        readonly = {name: np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape) for name, array in case.rows(0, 4).items()}
        unaligned = {
            name: np.ndarray(array.shape, array.dtype, b"x" + array.tobytes(), offset=1) for name, array in case.rows(0, 4).items()
        }
        column_major = {name: np.asfortranarray(array) for name, array in case.rows(0, 4).items()}
        for feeds in (readonly, unaligned, column_major):
            assert error_of(session.run(feeds), case.answers) < EXACT
        strided = {name: array[::-1][:4] for name, array in case.feeds.items()}
        backwards = {name: np.asarray(array)[::-1] for name, array in case.answers.items()}
        assert error_of(session.run(strided), backwards) < EXACT
        session.close()

    def test_two_sessions_run_in_two_threads(self, runtime: Runtime, case: Case) -> None:
        sessions = [runtime.open_session(case.path, threads=1) for _ in range(2)]
        errors: list[float | BaseException] = []

        def work(index: int) -> None:
            try:
                for turn in range(ROUNDS):
                    start, rows = (index + turn) % ROWS, 1 + turn % 2
                    rows = min(rows, ROWS - start)
                    errors.append(error_of(sessions[index].run(case.rows(start, rows)), case.answers, start))
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for session in sessions:
            session.close()
        assert len(errors) == 2 * ROUNDS
        assert all(isinstance(error, float) and error < EXACT for error in errors), errors

    def test_feeds_that_do_not_fit_are_refused_in_words(self, runtime: Runtime, case: Case) -> None:
        session = runtime.open_session(case.path, threads=1)
        good = case.rows(0, 2)
        name, array = next(iter(good.items()))
        wrong: dict[str, Mapping[str, object]] = {
            "no inputs": {},
            "another name": {**{k: v for k, v in good.items() if k != name}, f"{name}_": array},
            "one too many": {**good, "one_more": array},
            "another type": {**good, name: array.astype(np.float64)},
            "another byte order": {**good, name: array.astype(array.dtype.newbyteorder())},
            "no array": {**good, name: array.tolist()},
            "a dimension too few": {**good, name: array[0]},
            "a dimension too many": {**good, name: array[None]},
            "another size": {**good, name: np.concatenate([array, array], axis=1)},
        }
        for what, feeds in wrong.items():
            with pytest.raises(DataError) as raised:
                session.run(feeds)  # type: ignore[arg-type]
            assert is_sentence(str(raised.value)), f"{what}: {raised.value}"
        assert error_of(session.run(good), case.answers) < EXACT, "a refusal must leave the session usable"
        session.close()

    def test_a_bad_file_is_a_model_error(self, runtime: Runtime, case: Case, tmp_path: Path) -> None:
        name = "bad" + "".join(case.path.suffixes)
        contents = {"absent": None, "empty": b"", "garbage": b"\x08\x07not a graph" * 9, "torn": case.path.read_bytes()[:-40]}
        for what, content in contents.items():
            path = tmp_path / what / name
            path.parent.mkdir()
            if content is not None:
                path.write_bytes(content)
            with pytest.raises(ModelError) as raised:
                runtime.open_session(path, threads=1)
            assert str(path) in str(raised.value) and is_sentence(str(raised.value)), f"{what}: {raised.value}"
            assert is_sentence(runtime.refuse(path)), f"{what}: refuse() must give a reason"

    def test_it_needs_a_thread(self, runtime: Runtime, case: Case) -> None:
        with pytest.raises(ConfigError, match="at least 1"):
            runtime.open_session(case.path, threads=0)

    def test_close_lets_go(self, runtime: Runtime, case: Case) -> None:
        for _ in range(2):
            session = runtime.open_session(case.path, threads=1)
            kept = session.run(case.rows(0, 1))
            session.close()
            assert error_of(kept, case.answers) < EXACT, "outputs must outlive their session"

    @pytest.mark.parametrize("precision", ["bfloat16", "float16"])
    def test_a_narrower_precision_is_honoured_or_refused(self, runtime: Runtime, case: Case, precision: str, tmp_path: Path) -> None:
        if not self.reads_onnx:
            return
        path = _asking_for(precision, case.path, tmp_path)
        reason = runtime.refuse(path)
        if reason is not None:
            assert is_sentence(reason) and precision in reason
            with pytest.raises(Unsupported):
                runtime.open_session(path, threads=1)
            return
        session = runtime.open_session(path, threads=1)
        results = session.run(case.rows(0, ROWS))
        assert [array.dtype.name for array in results.values()] == [spec.dtype for spec in case.outputs], "the interface stays as it was"
        floats = {name: array for name, array in results.items() if array.dtype.kind == "f"}
        error = error_of(floats, case.answers)
        assert error < NARROW, f"answers are off by {error:.2g}"
        assert error > EXACT, f"the graph asks for {precision} and was computed in float32 all the same"
        session.close()

    def test_an_unknown_precision_is_refused(self, runtime: Runtime, case: Case, tmp_path: Path) -> None:
        if not self.reads_onnx:
            return
        path = _asking_for("float7", case.path, tmp_path)
        assert "float7" in str(runtime.refuse(path))
        with pytest.raises(Unsupported, match="float7"):
            runtime.open_session(path, threads=1)


def _asking_for(precision: str, path: Path, folder: Path) -> Path:
    proto = onnx.load(str(path))
    helper.set_model_props(proto, {"headway.precision": precision})
    asking = folder / f"{precision}.onnx"
    onnx.save(proto, str(asking))
    return asking
