"""A ``torch.nn.Module`` to ONNX, by both of PyTorch's exporters: the graphs can differ much in speed, so both are kept."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from torch import nn

from headway.model.agreement import one_line
from headway.model.feeds import lengthen
from headway.model.specs import BATCH
from headway.model.workshop import Exported, Request
from headway.records import ModelError

ROWS = 4
TRACED_ROWS = 3  # not 1, which exporters take for a constant; seldom equal to another dimension
SCRIPT_OPSET = 17
_BIG_BYTES = 1_500_000_000


class _Flat(nn.Module):
    """The module with tensors in a row going in and coming out: named arguments and structured outputs are put together here."""

    def __init__(self, module: nn.Module, arguments: tuple[str, ...], positional: int) -> None:
        super().__init__()
        self.module = module
        self.arguments = arguments
        self.positional = positional
        self.kept: tuple[str, ...] | None = None

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The kept outputs, flat."""
        leaves = self.leaves(*inputs)
        return tuple(leaves[name] for name in (self.kept or leaves))

    def train(self, mode: bool = True) -> _Flat:
        """The mode of this shell only: exported programs refuse to change theirs."""
        self.training = mode
        return self

    def leaves(self, *inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """All tensor outputs by name."""
        named = dict(zip(self.arguments[self.positional :], inputs[self.positional :], strict=True))
        made = self.module(*inputs[: self.positional], **named)
        return {"output": made} if torch.is_tensor(made) else _leaves(made, "")


@dataclass(frozen=True)
class _Subject:
    flat: _Flat
    inputs: dict[str, torch.Tensor]
    outputs: tuple[str, ...]
    fixed: int | None

    @property
    def traced(self) -> tuple[torch.Tensor, ...]:
        return tuple(value[: self.fixed or TRACED_ROWS] for value in self.inputs.values())


@dataclass(frozen=True)
class Program:
    """What an exported program tells of itself: example inputs, how many arguments are positional, and the batch if it is fixed."""

    example: Mapping[str, np.ndarray]
    positional: int
    fixed: int | None


def export(model: nn.Module, request: Request, program: Program | None = None) -> Exported:
    """ONNX files by ``torch-dynamo`` and ``torch-script``, with a free batch unless the program it comes from has a fixed one.

    Samples go to the arguments of ``forward`` with their names; when no name fits, in order. The graph's inputs keep the samples' names.
    Outputs are named by dictionary keys, ``output_0`` ... for a tuple, ``output`` for one tensor; outputs without a batch dimension
    are left out.

    Raises:
        ModelError: no samples and no example, names that do not fit ``forward``, or the module does not run on the rows.
    """
    routes = _wanted(request)
    notes: list[str] = []
    if program is None and any(part.training for part in model.modules()):
        model.eval()
        notes.append("the module was in training mode; exported in evaluation mode")
    arrays = request.samples if request.samples is not None or program is None else program.example
    if not arrays:
        raise ModelError(
            f"{request.source}: a PyTorch module does not tell its input shapes, so rows to trace it must be given, got none; "
            "give samples, or return (module, {'name': array}) from the callable"
        )
    arguments, names = _bind(model, tuple(arrays), request.source, notes)
    positional = program.positional if program else 0 if arguments == names else len(arguments)
    fixed = program.fixed if program else None
    rows = {name: lengthen(arrays[name], fixed or ROWS) for name in names}
    flat = _Flat(model.cpu(), arguments, positional).eval()
    inputs = {name: _tensor(array, model) for name, array in rows.items()}
    expected = _original(flat, inputs, request.source, notes)
    subject = _Subject(flat, inputs, tuple(expected), fixed)
    files: dict[str, Path] = {}
    for origin, route in routes.items():
        try:
            files[origin] = _write(route, subject, request.folder / origin)
        except Exception as error:  # exporters raise of many kinds
            notes.append(f"{origin}: the export failed: {one_line(error.__cause__ or error)}")
    labels = getattr(model, "labels", ())
    named = tuple(labels) if isinstance(labels, list | tuple) and all(isinstance(label, str) for label in labels) else ()
    return Exported(files, {name: value.numpy() for name, value in inputs.items()}, expected, tuple(notes), named)


def _wanted(request: Request) -> dict[str, Callable[[_Subject, Path], None]]:
    if request.exporters is None:
        return ROUTES
    unknown = [name for name in request.exporters if name not in ROUTES]
    if unknown or not request.exporters:
        raise ModelError(f"{request.source}: exporters must be out of {', '.join(ROUTES)}, got {', '.join(unknown) or 'none'}")
    return {name: ROUTES[name] for name in request.exporters}


def _bind(model: nn.Module, names: tuple[str, ...], source: str, notes: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Arguments of ``forward`` (empty text where only the place counts) and the samples' names, in the same order."""
    parameters = inspect.signature(model.forward).parameters.values()
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    required = [p.name for p in named if p.default is p.empty]
    matching = tuple(p.name for p in named if p.name in names)
    takes = f"{source}: forward takes {', '.join(p.name for p in named) or 'any number of arguments'}"
    if matching:
        lacking = [name for name in required if name not in names]
        if lacking:
            raise ModelError(f"{takes}; the samples must hold {', '.join(lacking)}, got only {', '.join(names)}")
        ignored = [name for name in names if name not in matching]
        if ignored:
            notes.append(f"samples not taken by forward: {', '.join(ignored)}")
        return matching, matching
    variadic = any(p.kind == p.VAR_POSITIONAL for p in parameters)
    if not (len(required) <= len(names) <= len(named) or variadic):
        raise ModelError(f"{takes}; the samples must be named so, got {', '.join(names)}")
    if len(names) > 1:
        notes.append(f"no sample is named as an argument of forward; passed in order: {', '.join(names)}")
    return ("",) * len(names), names


def _tensor(array: np.ndarray, model: nn.Module) -> torch.Tensor:
    tensor = torch.from_numpy(np.array(array))
    narrow = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    return tensor.to(narrow) if tensor.is_floating_point() and tensor.dtype != narrow else tensor


def _original(flat: _Flat, inputs: Mapping[str, torch.Tensor], source: str, notes: list[str]) -> dict[str, np.ndarray]:
    try:
        with torch.no_grad():
            leaves = flat.leaves(*inputs.values())
    except Exception as error:  # whatever forward raises
        shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in inputs.items())
        raise ModelError(f"{source}: the module must run on {shapes}, but it raised {type(error).__name__}: {one_line(error)}") from error
    rows = len(next(iter(inputs.values())))
    kept = {name: value for name, value in leaves.items() if value.ndim and len(value) == rows}
    if not kept:
        raise ModelError(f"{source}: forward must return a tensor with one row for each of the {rows} rows it is given, got none such")
    if len(kept) < len(leaves):
        notes.append(f"outputs without a batch dimension are left out: {', '.join(sorted(set(leaves) - set(kept)))}")
    flat.kept = tuple(kept)
    taken = set(inputs)
    return {f"{name}_out" if name in taken else name: value.numpy().copy() for name, value in kept.items()}


def _leaves(made: object, path: str) -> dict[str, torch.Tensor]:
    if torch.is_tensor(made):
        return {path or "output": made}
    if isinstance(made, Mapping):
        pairs = [(str(key), value) for key, value in made.items()]
    elif isinstance(made, tuple | list):
        pairs = [(str(index) if path else f"output_{index}", value) for index, value in enumerate(made)]
    else:
        return {}
    found: dict[str, torch.Tensor] = {}
    for key, value in pairs:
        found.update(_leaves(value, f"{path}_{key}" if path else key))
    return found


def _dynamo(subject: _Subject, file: Path) -> None:
    free = None if subject.fixed else (tuple({0: BATCH} for _ in subject.inputs),)
    big = sum(p.numel() * p.element_size() for p in subject.flat.parameters()) > _BIG_BYTES
    torch.onnx.export(
        subject.flat, subject.traced, file, dynamo=True, dynamic_shapes=free, external_data=big, verbose=False,
        input_names=list(subject.inputs), output_names=list(subject.outputs),
    )  # fmt: skip


def _script(subject: _Subject, file: Path) -> None:
    names = [*subject.inputs, *subject.outputs]
    flat: nn.Module = subject.flat
    if any(isinstance(part, torch.jit.ScriptModule) for part in flat.modules()):  # the exporter's own tracer does not enter scripts
        flat = torch.jit.trace(flat, subject.traced, check_trace=False)
    torch.onnx.export(
        flat, subject.traced, file, dynamo=False, opset_version=SCRIPT_OPSET, input_names=list(subject.inputs),
        output_names=list(subject.outputs), dynamic_axes=None if subject.fixed else {name: {0: BATCH} for name in names},
    )  # fmt: skip


def _write(route: Callable[[_Subject, Path], None], subject: _Subject, folder: Path) -> Path:
    folder.mkdir()
    raw, file = folder / "raw.onnx", folder / "model.onnx"
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        route(subject, raw)
    model = ir.load(raw)
    ClearMetadataAndDocStringPass()(model)  # stack traces with the user's paths
    for name, value in list(model.graph.initializers.items()):
        short = name.removeprefix("module.")
        if short != name and short not in model.graph.initializers:
            value.name = short
    ir.save(model, file, external_data="model.data" if sum(part.stat().st_size for part in folder.iterdir()) > _BIG_BYTES else None)
    return file


ROUTES: dict[str, Callable[[_Subject, Path], None]] = {"torch-dynamo": _dynamo, "torch-script": _script}
