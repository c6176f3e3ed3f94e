"""A model raised to a newer operator set."""

from __future__ import annotations

import onnx
from onnx import ModelProto, version_converter

from headway.compress.graph import normalise, opset
from headway.records import Unsupported


def raised(proto: ModelProto, version: int, technique: str) -> ModelProto:
    """The model at operator set ``version``.

    Raises:
        Unsupported: onnx cannot convert it; the sentence starts with the technique's name.
    """
    try:
        newer = version_converter.convert_version(proto, version)
        onnx.checker.check_model(newer)
    except Exception as error:  # onnx raises RuntimeError and others of its own
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise Unsupported(
            f"{technique}: needs operator set {version}, the model has {opset(proto)}, and onnx cannot raise it: {line[:200]}"
        ) from error
    return normalise(newer)
