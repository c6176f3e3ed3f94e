"""An old graph in a younger operator set: Headway works on opset 11 and later."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import version_converter

from headway.model.agreement import Runner, difference, one_line
from headway.records import ModelError

OLDEST = 11
TARGET = 13  # the first with quantization per channel


def modernise(proto: onnx.ModelProto, name: str, feeds: Mapping[str, np.ndarray]) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """The graph at opset 11 or later, with a note when it was converted; a conversion is kept only if the answers stay.

    Raises:
        ModelError: the graph is older and cannot be converted, or answers differently afterwards.
    """
    opset = next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), TARGET)
    if opset >= OLDEST:
        return proto, ()
    try:
        converted = version_converter.convert_version(proto, TARGET)
        onnx.checker.check_model(converted)
    except Exception as error:  # the converter raises whatever its C++ side throws
        raise ModelError(
            f"{name}: must be at opset {OLDEST} or later, got opset {opset}, and "
            f"ONNX's converter failed: {one_line(error)}. Export it again at opset 17."
        ) from error
    problem = difference(Runner(converted, name)(feeds), Runner(proto, name)(feeds))
    if problem:
        raise ModelError(
            f"{name}: must be at opset {OLDEST} or later, got opset {opset}, and after conversion {problem}. Export it again at opset 17."
        )
    return converted, (f"converted from opset {opset} to {TARGET}, answers checked",)
