"""What a PyTorch file is, seen from its zip directory and its texts; nothing in it is opened by PyTorch, and no pickle is read.

The layout of a TorchScript archive: pytorch/pytorch, ``torch/csrc/jit/docs/serialization.md``.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from headway.model.zipped import DAMAGED, open_bounded
from headway.records import ModelError

MAX_CODE_BYTES = 64 * 2**20
TOUCHES_FILES = re.compile(r"\b(?:torch|ops\.aten)\s*\.\s*(save|load|from_file)\s*\(")
"""Operators of TorchScript that name a file; models have no need of them."""
_PYTHON_INSTEAD = "give the model by python:module:callable, or export it with torch.export or to ONNX"


def not_torchscript(path: Path) -> str:
    """Empty for a TorchScript archive without a call of an operator that touches files; else what it is instead, and what to do.

    Raises:
        ModelError: the file cannot be read.
    """
    try:
        with open_bounded(path) as file:
            if not zipfile.is_zipfile(file):
                return _no_archive(path)
            file.seek(0)
            with zipfile.ZipFile(file) as archive:
                return _archive(archive)
    except OSError as error:
        raise ModelError(f"{path}: must be readable, got: {error.strerror}; check its permissions") from error
    except DAMAGED as error:
        return f"a damaged archive ({str(error)[:100]}); copy it again"


def _no_archive(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        return "an empty file; copy it again"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer; run 'git lfs pull'"
    if start[:1] == b"\x80":
        return f"a pickle, which can run code and is not opened; {_PYTHON_INSTEAD}"
    return "no archive of PyTorch; save it with torch.jit.save"


def _archive(archive: zipfile.ZipFile) -> str:
    entries = archive.infolist()
    names = [entry.filename.partition("/")[2] for entry in entries]
    if "constants.pkl" not in names or not any(name.startswith("code/") for name in names):
        if "data.pkl" in names:
            return f"weights or a module saved by torch.save (eager mode): a pickle that needs the model's Python code; {_PYTHON_INSTEAD}"
        if any(name.startswith(("models/", "archive_format")) for name in names):
            return "a program saved by torch.export; give it by itself as FILE.pt2"
        return "no TorchScript archive; save it with torch.jit.save"
    left = MAX_CODE_BYTES
    for entry, name in zip(entries, names, strict=True):
        if not (name.startswith("code/") and name.endswith(".py")):
            continue
        left -= entry.file_size
        if left < 0:
            return f"TorchScript with more than {MAX_CODE_BYTES} bytes of code; do not trust this file"
        with archive.open(entry) as code:
            found = TOUCHES_FILES.search(code.read(entry.file_size).decode("utf-8", "replace"))
        if found:
            return f"TorchScript that calls the operator {found[1]}, which reads or writes files; do not trust this file"
    return ""
