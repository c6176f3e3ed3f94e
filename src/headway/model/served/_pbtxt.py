"""Configurations in protobuf's text format, read with the few fields that are needed; all others are skipped.

Triton: triton-inference-server/common, ``protobuf/model_config.proto``. TensorFlow Serving: tensorflow/serving,
``tensorflow_serving/servables/tensorflow/session_bundle_config.proto``. The messages are made here, in a pool of their own, with numbers that
mean nothing: the text format goes by names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from google.protobuf.message_factory import GetMessageClass

from headway.model.served._files import read_text
from headway.records import ModelError

PACKAGE = "headway.served"
ENUMS = {
    "DataType": (
        "TYPE_INVALID", "TYPE_BOOL", "TYPE_UINT8", "TYPE_UINT16", "TYPE_UINT32", "TYPE_UINT64", "TYPE_INT8", "TYPE_INT16", "TYPE_INT32",
        "TYPE_INT64", "TYPE_FP16", "TYPE_FP32", "TYPE_FP64", "TYPE_STRING", "TYPE_BF16",
    ),
    "Kind": ("KIND_AUTO", "KIND_GPU", "KIND_CPU", "KIND_MODEL"),
}  # fmt: skip
MESSAGES = {
    "Empty": {},
    "Latest": {"num_versions": "uint32"},
    "Specific": {"versions": "int64*"},
    "VersionPolicy": {"latest": "Latest", "all": "Empty", "specific": "Specific"},
    "Reshape": {"shape": "int64*"},
    "Tensor": {"name": "string", "data_type": "DataType", "dims": "int64*", "reshape": "Reshape", "label_filename": "string"},
    "Group": {"kind": "Kind", "count": "int32", "gpus": "int32*"},
    "Batching": {"preferred_batch_size": "int32*", "max_queue_delay_microseconds": "uint64"},
    "Value": {"string_value": "string"},
    "Parameter": {"key": "string", "value": "Value"},
    "ModelConfig": {
        "name": "string", "platform": "string", "backend": "string", "version_policy": "VersionPolicy", "max_batch_size": "int32",
        "input": "Tensor*", "output": "Tensor*", "dynamic_batching": "Batching", "sequence_batching": "Empty", "ensemble_scheduling": "Empty",
        "instance_group": "Group*", "default_model_filename": "string", "parameters": "Parameter*",
    },
    "Number": {"value": "int64"},
    "BatchingParameters": {"max_batch_size": "Number", "batch_timeout_micros": "Number", "num_batch_threads": "Number", "allowed_batch_sizes": "int64*"},
}  # fmt: skip
"""Message by message: a field's name to its type; a star is a repeated field."""

_SCALARS = {"string": 9, "int32": 5, "int64": 3, "uint32": 13, "uint64": 4}  # FieldDescriptorProto.Type
_ENUM, _MESSAGE = 14, 11
_OPTIONAL, _REPEATED = 1, 3


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="headway_served.proto", package=PACKAGE, syntax="proto2")
    for name, values in ENUMS.items():
        enum = file.enum_type.add(name=name)
        for number, value in enumerate(values):
            enum.value.add(name=value, number=number)
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (field, kind) in enumerate(fields.items(), start=1):
            bare = kind.removesuffix("*")
            made = message.field.add(name=field, number=number, label=_REPEATED if kind.endswith("*") else _OPTIONAL)
            made.type = _SCALARS.get(bare) or (_ENUM if bare in ENUMS else _MESSAGE)
            if bare not in _SCALARS:
                made.type_name = f".{PACKAGE}.{bare}"
    return file


_POOL = descriptor_pool.DescriptorPool()
_POOL.AddSerializedFile(_file().SerializeToString())


def read_message(path: Path, name: str) -> Any:
    """The message ``name`` of the table, from a small file.

    Raises:
        ModelError: it cannot be read, or is not in the text format.
    """
    message = GetMessageClass(_POOL.FindMessageTypeByName(f"{PACKAGE}.{name}"))()
    try:
        text_format.Parse(read_text(path), message, allow_unknown_field=True)
    except (text_format.ParseError, RecursionError, ValueError) as error:
        said = "it is nested too deeply" if isinstance(error, RecursionError) else str(error).split("\n", maxsplit=1)[0][:200]
        raise ModelError(f"{path}: must be in protobuf's text format, got something else ({said}); correct it") from error
    return message
