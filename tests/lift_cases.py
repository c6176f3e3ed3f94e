"""ONNX's own backend node tests, run on lifted graphs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, numpy_helper

from headway.lift import lift
from headway.lift.tensors import from_array
from headway.model import Model

FLOAT_TYPES = {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16}


@dataclass(frozen=True)
class Case:
    """One node test: a model and arrays in and out."""

    name: str
    model: onnx.ModelProto
    data: Any
    rtol: float
    atol: float

    @property
    def floats(self) -> bool:
        """Whether the case is about floats: an input or an output is a float tensor, and it is at opset 11 or later."""
        graph = self.model.graph
        kinds = {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output) if value.type.HasField("tensor_type")}
        return bool(kinds & FLOAT_TYPES)

    @property
    def operators(self) -> str:
        """Names of the operators, for a list."""
        return ", ".join(dict.fromkeys(node.op_type for node in self.model.graph.node))


def cases() -> Iterator[Case]:
    """All node tests of the installed ``onnx`` in the default domain at opset 11 or later, apart from training (gradient, optimizer) ones."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.loader import load_model_tests

        found = load_model_tests(kind="node")
    for case in found:
        domains = {entry.domain: entry.version for entry in case.model.opset_import}
        if domains.get("", 0) >= 11 and set(domains) <= {"", "ai.onnx"}:
            yield Case(case.name, case.model, case.data_sets, case.rtol, case.atol)


def problem(case: Case) -> str:
    """Why a lifted graph fails the case; empty when it passes."""
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            module = lift(Model.from_proto(case.model, case.name, "onnx")).eval()
            for inputs, outputs in case.data:
                feeds = {value.name: _tensor(each) for value, each in zip(case.model.graph.input, inputs, strict=False)}
                found = module(feeds)
                for value, wanted in zip(case.model.graph.output, outputs, strict=True):
                    said = _difference(found[value.name], wanted, case)
                    if said:
                        return f"output {value.name}: {said}"
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return ""


def _tensor(value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, list):
        return [_tensor(each) for each in value]
    if isinstance(value, TensorProto):
        value = numpy_helper.to_array(value)
    return from_array(np.asarray(value))


def _difference(found: Any, wanted: Any, case: Case) -> str:
    if isinstance(wanted, list):
        if not isinstance(found, list) or len(found) != len(wanted):
            return "not the same sequence"
        return next((said for one, other in zip(found, wanted, strict=True) if (said := _difference(one, other, case))), "")
    if wanted is None or found is None:
        return "" if wanted is found else "one is absent"
    expected = _tensor(wanted)
    if not isinstance(found, torch.Tensor) or not isinstance(expected, torch.Tensor):
        return "" if np.array_equal(found, expected) else "other values"
    if found.dtype != expected.dtype:
        return f"type {found.dtype}, expected {expected.dtype}"
    if found.shape != expected.shape:
        return f"shape {list(found.shape)}, expected {list(expected.shape)}"
    complex_ = found.is_complex()
    one = found.to(torch.complex128 if complex_ else torch.float64).numpy()
    two = expected.to(torch.complex128 if complex_ else torch.float64).numpy()
    close = np.isclose(one, two, rtol=case.rtol, atol=case.atol, equal_nan=True)
    return "" if close.all() else f"{int((~close).sum())} of {close.size} values differ"
