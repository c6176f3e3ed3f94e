"""A PyTorch program from ``torch.export.save``: ``FILE.pt2``. Its batch is free when it was exported with a free first dimension."""

from __future__ import annotations

import inspect

import numpy as np
import torch

from headway.model.agreement import one_line
from headway.model.objects.torch import Program
from headway.model.objects.torch import export as export_module
from headway.model.workshop import Exported, Request
from headway.records import ModelError


def export(request: Request) -> Exported:
    """The program through PyTorch's exporters; without samples, on the example inputs that the file holds.

    Raises:
        ModelError: the file is no exported program.
    """
    try:
        program = torch.export.load(request.source)
    except Exception as error:  # zip, JSON and schema errors of many kinds
        raise ModelError(
            f"{request.source}: must be a file from torch.export.save, got: {one_line(error)}; "
            f"save it again with PyTorch {torch.__version__}"
        ) from error
    module = program.module(check_guards=False)
    example: dict[str, np.ndarray] = {}
    if program.example_inputs is not None:
        arguments, keywords = program.example_inputs
        given = {**dict(zip(inspect.signature(module.forward).parameters, arguments, strict=False)), **keywords}
        example = {name: value.numpy() for name, value in given.items() if torch.is_tensor(value)}
    positional = program.call_spec.in_spec.child(0).num_children
    return export_module(module, request, Program(example, positional, _fixed(program)))


def _fixed(program: torch.export.ExportedProgram) -> int | None:
    """The batch size written into the program; none when it is free."""
    wanted = set(program.graph_signature.user_inputs)
    sizes = [
        node.meta["val"].shape[0]
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in wanted and torch.is_tensor(node.meta.get("val")) and node.meta["val"].ndim
    ]
    return sizes[0] if sizes and all(isinstance(size, int) and size == sizes[0] for size in sizes) else None
