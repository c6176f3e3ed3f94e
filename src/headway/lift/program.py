"""A graph compiled to a list of steps, and the frame they run in."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from onnx import GraphProto, ModelProto, NodeProto

from headway.lift import operators, registry
from headway.lift.ghosts import ghosts
from headway.lift.node import Node
from headway.lift.registry import Operator, Run
from headway.lift.store import Store, graphs, places
from headway.records import DataError, Unsupported

assert operators.__doc__, "importing the operators registers them"
FOLD_LIMIT = 1 << 22
"""A value computed beforehand may hold at most this many elements."""


@dataclass(slots=True)
class Frame:
    """What a running graph sees.

    Attributes:
        tensors: weights and constants by key.
        training: dropout drops.
        update_statistics: batch normalization uses the batch and updates what is stored.
        device: where floats live; shapes stay on the CPU.
        values: values in scope by name.
    """

    tensors: Mapping[str, Any]
    training: bool
    update_statistics: bool
    device: torch.device
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Step:
    """One node: its function, what it reads and makes, and what nobody reads afterwards."""

    run: Run
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    label: str
    operator: Operator
    captured: tuple[str, ...] = ()
    last: tuple[str, ...] = ()


@dataclass(slots=True)
class Program:
    """A runnable graph.

    Attributes:
        inputs: names of the values that a call brings.
        outputs: names of the values that a call gives.
        keys: constants by name, as keys of the frame's tensors.
        captured: names taken from the scope around.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    keys: dict[str, str]
    captured: tuple[str, ...]
    steps: list[Step]

    def __call__(self, frame: Frame, *inputs: Any) -> list[Any]:
        """Run as a subgraph: captured values come from the frame."""
        around = frame.values
        values = {name: around[name] for name in self.captured}
        values.update(zip(self.inputs, inputs, strict=False))
        inner = Frame(frame.tensors, frame.training, frame.update_statistics, frame.device, values)
        self.execute(inner)
        return [values[name] for name in self.outputs]

    def execute(self, frame: Frame, keep: Collection[str] = ()) -> None:
        """Run all steps on ``frame.values``, which then hold the outputs and what is to be kept."""
        values, tensors = frame.values, frame.tensors
        for name, key in self.keys.items():
            values.setdefault(name, tensors[key])
        values[""] = None
        far = frame.device.type != "cpu"
        for step in self.steps:
            arguments = [values[name] for name in step.inputs]
            if far:
                arguments = _together(arguments, step.operator, frame.device)
            try:
                result = step.run(frame, *arguments) if step.operator.frame else step.run(*arguments)
            except (RuntimeError, IndexError, ValueError) as error:
                raise _misfit(step, arguments, error) from error
            except Exception as error:
                error.add_note(f"in the lifted graph at node {step.label}")
                raise
            if len(step.outputs) == 1 and not isinstance(result, tuple):
                values[step.outputs[0]] = result
            else:
                values.update(zip(step.outputs, result, strict=False))
            for name in step.last:
                if name not in keep:
                    del values[name]


def _misfit(step: Step, arguments: Sequence[Any], error: Exception) -> DataError:
    shapes = ", ".join(str(list(each.shape)) for each in arguments if isinstance(each, torch.Tensor)) or "none"
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return DataError(
        f"lift: node {step.label} must get values that it can work on, got shapes {shapes}: {reason}; compare the rows with the model's inputs"
    )


def compile_model(proto: ModelProto, store: Store, learn_scales: bool) -> Program:
    """Compile a model's main graph.

    Raises:
        Unsupported: a node that cannot be executed; the message names it and says what to do.
    """
    return _Compiler(proto, store, learn_scales).compile(proto.graph)


class _Compiler:
    def __init__(self, proto: ModelProto, store: Store, learn_scales: bool) -> None:
        self.opsets = {entry.domain: entry.version for entry in proto.opset_import}
        self.opsets[""] = self.opsets.get("", self.opsets.get("ai.onnx", 0))
        self.store = store
        self.learn_scales = learn_scales
        self.all_graphs = list(graphs(proto.graph))
        self.kinds = {place.name: place.tensor.data_type for place in places(proto.graph)}
        self.kinds |= {value.name: value.type.tensor_type.elem_type for each in self.all_graphs for value in each.input}
        self.carried: dict[str, int] = {}

    def compile(self, graph: GraphProto) -> Program:
        number = next(position for position, each in enumerate(self.all_graphs) if each is graph)
        keys = {name: key for (where, name), key in self.store.keys.items() if where == number}
        floating = ghosts(graph)
        made: set[str] = set(keys) | {value.name for value in graph.input} | {""}
        captured: dict[str, None] = {}
        steps = []
        for proto in graph.node:
            if proto.op_type == "Constant" and proto.output[0] in keys:
                continue
            step = self._step(proto, floating, keys)
            captured.update(dict.fromkeys(name for name in (*step.inputs, *step.captured) if name not in made))
            made.update(step.outputs)
            if not self._fold(step, keys):
                steps.append(step)
        outputs = tuple(value.name for value in graph.output)
        captured.update(dict.fromkeys(name for name in outputs if name not in made))
        _mark_last(steps, {*outputs, ""})
        inputs = tuple(value.name for value in graph.input)
        return Program(inputs, outputs, keys, tuple(captured), steps)

    def _step(self, proto: NodeProto, floating: Collection[str], keys: Mapping[str, str]) -> Step:
        opset = self.opsets.get(proto.domain, 1)
        inner: list[Program] = []

        def compile_inner(graph: GraphProto) -> Program:
            inner.append(self.compile(graph))
            return inner[-1]

        first = keys.get(proto.input[0], "") if proto.input else ""
        node = Node(
            proto, opset, compile_inner, scales=self.learn_scales, kinds=self.kinds,
            ghost=proto.output[0] in floating, carried=self.carried.get(proto.input[0], 0) if proto.input else 0,
            latent=self.store.latents[first].kind if proto.op_type == "DequantizeLinear" and first in self.store.latents else 0,
        )  # fmt: skip
        if node.ghost:
            self.carried[proto.output[0]] = node.quantizes_to
        operator = registry.find(proto.domain, proto.op_type, opset)
        if operator is None:
            domain = proto.domain or "ai.onnx"
            raise node.refuse(
                f"must be an operator that can be lifted, got {domain}.{proto.op_type}; train or change the model before export"
            )
        run = operator.build(node)
        captured = tuple(dict.fromkeys(name for program in inner for name in program.captured))
        return Step(run, tuple(proto.input), tuple(proto.output), f"{node.label} ({proto.op_type})", operator, captured)

    def _fold(self, step: Step, keys: dict[str, str]) -> bool:
        """Compute a step beforehand when all it reads is fixed; what fails or is large is left to run time."""
        fixed = self.store.fixed
        if step.operator.frame or step.operator.random or any(name and keys.get(name) not in fixed for name in step.inputs):
            return False
        try:
            with torch.no_grad():
                result = step.run(*(fixed[keys[name]] if name else None for name in step.inputs))
        except (RuntimeError, TypeError, ValueError, IndexError, DataError, Unsupported):
            return False
        results = result if isinstance(result, tuple) else (result,)
        if not all(isinstance(each, torch.Tensor) and each.numel() <= FOLD_LIMIT for each in results):
            return False
        keys.update({name: self.store.add(each) for name, each in zip(step.outputs, results, strict=False)})
        return True


def _mark_last(steps: list[Step], stay: set[str]) -> None:
    seen = set(stay)
    for step in reversed(steps):
        names = dict.fromkeys(name for name in (*step.inputs, *step.captured, *step.outputs) if name not in seen)
        step.last = tuple(names)
        seen.update(names)


def _together(arguments: Iterable[Any], operator: Operator, device: torch.device) -> list[Any]:
    """Bring the inputs to one device when any is on the accelerator, apart from those read on the CPU."""
    found = list(arguments)
    if not any(isinstance(each, torch.Tensor) and each.device == device for each in found):
        return found
    return [
        each.to(device) if isinstance(each, torch.Tensor) and each.device != device and position not in operator.host else each
        for position, each in enumerate(found)
    ]
