"""The protocol's names of element types.

The protocol: kserve/open-inference-protocol, ``specification/protocol/inference_rest.md``, section "Tensor Data Types".
"""

from __future__ import annotations

DATATYPES = {
    "bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64",
    "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64",
    "float16": "FP16", "float32": "FP32", "float64": "FP64",
}  # fmt: skip
"""numpy's name of an element type to the protocol's; strings (``BYTES``) have no fixed size and stand apart."""

NUMPY = {name: numpy_name for numpy_name, name in DATATYPES.items()}
"""The protocol's name of an element type to numpy's."""
