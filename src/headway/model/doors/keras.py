"""A Keras 3 model from ``model.save``: ``FILE.keras``; lambdas inside are refused by Keras's safe mode."""

from __future__ import annotations

import keras

from headway.model.agreement import one_line
from headway.model.objects.keras import export as export_model
from headway.model.workshop import Exported, Request
from headway.records import ModelError


def export(request: Request) -> Exported:
    """The saved model on the TensorFlow backend, through tf2onnx.

    Raises:
        ModelError: the file is no Keras 3 model, or needs custom classes that are not importable.
    """
    try:
        model = keras.saving.load_model(request.source, compile=False)
    except Exception as error:  # zip, JSON and class look-up errors of many kinds
        raise ModelError(
            f"{request.source}: must be a model saved by Keras 3, got: {one_line(error)}; for custom classes use python:module:callable"
        ) from error
    return export_model(model, request)
