"""A TensorFlow SavedModel folder: its ``serving_default`` signature, or the only one it has."""

from __future__ import annotations

import tensorflow as tf

from headway.model.agreement import one_line
from headway.model.objects._tensorflow import Port, convert
from headway.model.workshop import Exported, Request
from headway.records import ModelError


def export(request: Request) -> Exported:
    """The signature as one ONNX file, origin ``saved-model``; inputs and outputs keep the signature's names.

    Raises:
        ModelError: the folder does not load, or has no signature to choose.
    """
    try:
        loaded = tf.saved_model.load(request.source)
    except Exception as error:  # protobuf, file and operator errors of many kinds
        raise ModelError(f"{request.source}: must be a TensorFlow SavedModel, got: {one_line(error)}; save it again") from error
    signatures = dict(loaded.signatures)
    name = "serving_default" if "serving_default" in signatures else next(iter(signatures), "")
    if not name or (name != "serving_default" and len(signatures) > 1):
        raise ModelError(
            f"{request.source}: must have a signature 'serving_default', got {', '.join(signatures) or 'none'}; save it with one"
        )
    function = signatures[name]
    specs = function.structured_input_signature[1]
    ports = tuple(_port(key, spec, request.source) for key, spec in specs.items())

    def run(*inputs: tf.Tensor) -> object:
        return function(**dict(zip(specs, inputs, strict=True)))

    return convert(run, ports, (), request, "saved-model")


def _port(name: str, spec: tf.TensorSpec, source: str) -> Port:
    if spec.shape.rank is None or spec.shape.rank == 0:
        raise ModelError(
            f"{source}: input {name} must have a known shape with a batch dimension, got {spec.shape}; save the model with one"
        )
    return Port(name, tuple(spec.shape.as_list()[1:]), spec.dtype.name, batch=spec.shape.as_list()[0])
