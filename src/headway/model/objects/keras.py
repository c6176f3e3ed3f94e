"""A Keras 3 model to ONNX, on the TensorFlow backend through tf2onnx."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import keras
import tensorflow as tf

from headway.model.agreement import one_line
from headway.model.objects._tensorflow import Port, convert
from headway.model.workshop import Exported, Request
from headway.records import ModelError


def export(model: keras.Model, request: Request) -> Exported:
    """One ONNX file, origin ``keras``, with a free batch and inputs named as the samples (or, without samples, as the model's inputs).

    Raises:
        ModelError: another backend than TensorFlow, a model without known input shapes, or one that does not convert.
    """
    if keras.backend.backend() != "tensorflow":
        raise ModelError(
            f"{request.source}: a Keras model must be on the TensorFlow backend to be exported, got {keras.backend.backend()}; "
            "do not choose another backend in its code"
        )
    called = _built(model, request) if getattr(model, "inputs", None) else _subclassed(model, request)
    return convert(called.run, called.ports, _output_names(model), request, "keras")


@dataclass(frozen=True)
class _Called:
    ports: tuple[Port, ...]
    run: Callable[..., object]


def _built(model: keras.Model, request: Request) -> _Called:
    ports = tuple(Port(value.name.split(":")[0], tuple(value.shape[1:]), value.dtype) for value in model.inputs)

    def run(*inputs: tf.Tensor) -> object:
        return model(list(inputs) if len(inputs) > 1 else inputs[0], training=False)

    return _Called(ports, run)


def _subclassed(model: keras.Model, request: Request) -> _Called:
    """A model with a ``call`` of its own: its inputs are known only from samples."""
    if not request.samples:
        raise ModelError(f"{request.source}: a subclassed Keras model does not tell its input shapes, so samples must be given, got none")
    names = tuple(request.samples)
    ports = tuple(Port(name, array.shape[1:], array.dtype.name) for name, array in request.samples.items())
    arguments = inspect.signature(model.call).parameters

    def run(*inputs: tf.Tensor) -> object:
        if len(inputs) == 1:
            return model(inputs[0], training=False)
        given = dict(zip(names, inputs, strict=True))
        return model(**given, training=False) if set(names) <= set(arguments) else model(given, training=False)

    try:
        run(*(tf.convert_to_tensor(array[:1]) for array in request.samples.values()))
    except Exception as error:  # whatever call raises
        raise ModelError(
            f"{request.source}: the model must run on the samples, but it raised {type(error).__name__}: {one_line(error)}"
        ) from error
    return _Called(ports, run)


def _output_names(model: keras.Model) -> tuple[str, ...]:
    """Names of the layers that give the outputs, where the model tells them."""
    structure = getattr(model, "output", None) if getattr(model, "inputs", None) else None
    if structure is None or isinstance(structure, Mapping):
        return ()
    values = structure if isinstance(structure, list | tuple) else [structure]
    names = [getattr(getattr(value, "_keras_history", (None,))[0], "name", "") for value in values]
    return tuple(names) if all(names) and len(set(names)) == len(names) else ()
