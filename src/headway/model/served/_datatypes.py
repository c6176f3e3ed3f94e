"""Element types in the words of Triton and of the Open Inference Protocol."""

from __future__ import annotations

NAMES = {
    "BOOL": "bool", "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64", "INT8": "int8", "INT16": "int16",
    "INT32": "int32", "INT64": "int64", "FP16": "float16", "FP32": "float32", "FP64": "float64", "BF16": "bfloat16", "STRING": "str", "BYTES": "str",
}  # fmt: skip
"""Their name to numpy's."""
UNKNOWN = "undefined"
