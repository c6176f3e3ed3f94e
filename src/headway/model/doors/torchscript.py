"""A TorchScript archive, ``torchscript:FILE.pt``: traced or scripted, saved by ``torch.jit.save``. It needs samples.

TorchScript is a program in PyTorch's own closed language, run by its interpreter: no Python of the file's author is in it, and the pickles in
it are read by a reader that calls nothing. A program can still run for long or take much memory, and PyTorch's ``SECURITY.md`` says to run only
what comes from somebody trusted; archives that call operators on files are refused before PyTorch sees them. It runs in this process of its
own, as every door does.
"""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from headway.model.agreement import one_line
from headway.model.objects.torch import export as export_module
from headway.model.torch_file import not_torchscript
from headway.model.workshop import Exported, Request
from headway.records import ModelError

ROUTES = ("torch-script",)
"""Of PyTorch's exporters, the one that takes TorchScript."""


class _Named(nn.Module):
    """A TorchScript module whose ``forward`` tells its arguments as a Python function does."""

    def __init__(self, script: torch.jit.ScriptModule) -> None:
        super().__init__()
        self.script = script
        self.training = False

        def forward(*inputs: torch.Tensor, **named: torch.Tensor) -> object:
            return script(*inputs, **named)

        forward.__signature__ = _signature(script)  # type: ignore[attr-defined]
        self.forward = forward


def export(request: Request) -> Exported:
    """The module through PyTorch's TorchScript exporter.

    Raises:
        ModelError: the file is no TorchScript archive, or does not run.
    """
    reason = not_torchscript(Path(request.source))
    if reason:
        raise ModelError(f"{request.source}: must be TorchScript, got {reason}")
    try:
        script = torch.jit.load(request.source, map_location="cpu").eval()
        module = _Named(script)
    except Exception as error:  # archive, operator and device errors of many kinds
        raise ModelError(
            f"{request.source}: must be TorchScript that PyTorch {torch.__version__} reads, got: {one_line(error)}; save it again"
        ) from error
    return export_module(module, replace(request, exporters=request.exporters or ROUTES))


def _signature(script: torch.jit.ScriptModule) -> inspect.Signature:
    arguments = script.forward.schema.arguments[1:]  # the first is the module
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Signature(
        [inspect.Parameter(a.name, kind, default=a.default_value if a.has_default_value() else inspect.Parameter.empty) for a in arguments]
    )
