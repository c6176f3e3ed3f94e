"""A reference to models: read or exported, made batchable, checked against the original's answers."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from headway import discovery
from headway.model import doors, served
from headway.model.agreement import Runner, difference, rows
from headway.model.batch import CHECK_ROWS, fixed_batch, settle_batch
from headway.model.feeds import Samples, lengthen, trial_rows
from headway.model.foreign import exported
from headway.model.graph import Model
from headway.model.opset import modernise
from headway.model.promised import differences, ordered_rows
from headway.model.reading import read_onnx
from headway.model.reference import ONNX, Reference, parse
from headway.model.served.contract import Form, ServedBy
from headway.model.specs import BATCH
from headway.model.workshop import Exported
from headway.records import InputError, ModelError

LABEL_KEYS = ("headway.labels", "labels", "classes", "names")


@dataclass(frozen=True, slots=True)
class Loaded:
    """What came in: one model per export route that worked, the preferred first; notes for people; class labels if known.

    ``served_by`` is how another server ran it, where its configuration lay with the model.
    """

    models: tuple[Model, ...]
    notes: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    served_by: ServedBy | None = None


def load(reference: str, samples: Samples | None = None, *, exporters: Sequence[str] | None = None) -> Loaded:
    """The models that a reference gives.

    ``FILE.onnx`` is read here; every other kind (``FILE.pt2``, ``FILE.keras``, a SavedModel folder, ``python:module:callable``) is
    exported in a process of its own. In a folder or an archive of another server (``headway.model.served``) the model is found first; it
    is then read or exported as if it had been given by itself. Batches of one and two rows must answer as single rows do; an export must answer as the original
    within 1e-4 (``agreement.difference``), or it is dropped with a note.

    Args:
        samples: input name to array of rows; a few are used. None: inputs are made up from the model's own specs.
        exporters: origins wanted (``torch-dynamo``, ``torch-script``); None: all that the door knows. An ONNX file has none.

    Raises:
        ModelError: nothing that can be read, run or exported with the same answers; the message says why.
        MissingPackage: the framework is not installed.
        DataError: the samples lack an input or have a wrong type.
    """
    forms: Mapping[str, Form] = discovery.discover(served).present  # type: ignore[assignment]
    known = parse(reference, discovery.names(doors), forms)
    if known.door in forms:
        return _from_server(known, forms[known.door], samples, exporters)
    return _open(known, samples, exporters)


def _open(known: Reference, samples: Samples | None, exporters: Sequence[str] | None) -> Loaded:
    if known.door == ONNX:
        return _from_onnx(known, samples)
    with exported(known, samples, exporters) as done:
        return _from_export(known, done)


def _from_server(known: Reference, form: Form, samples: Samples | None, exporters: Sequence[str] | None) -> Loaded:
    """The model in a folder or an archive of another server; where it was unpacked to is not told to anybody."""
    with tempfile.TemporaryDirectory(prefix="headway-") as place:
        try:
            inside = form.find(Path(known.source), Path(place))
            inner = Reference(inside.door, str(inside.path), inside.name or known.name)
            loaded = _open(inner, ordered_rows(inside, samples), exporters)
        except InputError as error:
            if place not in str(error):
                raise
            raise type(error)(str(error).replace(place, known.source)) from error
    how = (str(inside.served_by),) if inside.served_by is not None else ()
    told = tuple(note.replace(place, known.source) for note in loaded.notes)
    notes = (*how, *inside.notes, *differences(inside, loaded.models[0]), *told)
    return replace(loaded, notes=notes, labels=loaded.labels or inside.labels, served_by=inside.served_by)


def _from_onnx(reference: Reference, samples: Samples | None) -> Loaded:
    path = Path(reference.source)
    proto = read_onnx(path)
    specs = Model(reference.name, ONNX, ir.from_proto(proto)).inputs
    size = fixed_batch(proto) or 1
    feeds = trial_rows(specs, samples, CHECK_ROWS * size, str(path))
    proto, converted = modernise(proto, str(path), rows(feeds, 0, size) if fixed_batch(proto) else feeds)
    proto, batched = settle_batch(proto, str(path), feeds)
    model = Model.from_proto(_settle_outputs(proto, str(path), feeds), reference.name, ONNX)
    return Loaded((model,), (*converted, *batched), _labels(proto, path))


def _from_export(reference: Reference, done: Exported) -> Loaded:
    models: list[Model] = []
    notes = list(done.notes)
    for origin, path in done.routes.items():
        try:
            proto, remarks = _checked(read_onnx(path), origin, done)
        except ModelError as error:
            notes.append(f"{origin}: dropped: {error}")
            continue
        name = f"{reference.name}-{origin.split('-')[-1]}" if origin.startswith("torch-") else reference.name
        models.append(Model.from_proto(proto, name, origin))
        notes.extend(f"{origin}: {remark}" for remark in remarks)
    if not models:
        raise ModelError(
            f"{reference.source}: at least one export must give the original's answers, got none: {'; '.join(notes) or 'no export worked'}"
        )
    models.sort(key=lambda model: fixed_batch(model.to_proto()) is not None)  # a free batch is preferred
    return Loaded(tuple(models), tuple(notes), done.labels)


def _checked(proto: onnx.ModelProto, origin: str, done: Exported) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """An export with a settled batch that answers as the original.

    Raises:
        ModelError: it does not.
    """
    size = fixed_batch(proto)
    enough = {name: lengthen(array, CHECK_ROWS * (size or 1)) for name, array in done.inputs.items()}
    proto, notes = settle_batch(proto, origin, enough)
    run = Runner(proto, origin)
    count = min(len(array) for array in done.expected.values())
    step = fixed_batch(proto) or count
    for start in range(0, count - step + 1, step):
        problem = difference(run(rows(done.inputs, start, start + step)), rows(done.expected, start, start + step))
        if problem:
            raise ModelError(f"answers must be the original's within 1e-4, but {problem}")
    return _settle_outputs(proto, origin, enough), notes


def _settle_outputs(proto: onnx.ModelProto, name: str, feeds: dict[str, np.ndarray]) -> onnx.ModelProto:
    """The graph with a shape on every output; those without one get it from a run."""
    bare = [port for port in proto.graph.output if not port.type.tensor_type.HasField("shape")]
    if not bare:
        return proto
    free = fixed_batch(proto) is None
    seen = Runner(proto, name)(rows(feeds, 0, fixed_batch(proto) or CHECK_ROWS))
    for port in bare:
        array = seen[port.name]
        dims = [BATCH if axis == 0 and free else size for axis, size in enumerate(array.shape)]
        port.CopyFrom(onnx.helper.make_tensor_value_info(port.name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), dims))
    return proto


def _labels(proto: onnx.ModelProto, path: Path) -> tuple[str, ...]:
    """Class labels from the graph's metadata (a JSON list), or from ``NAME.labels.txt`` beside the file, one a line."""
    props = {entry.key: entry.value for entry in proto.metadata_props}
    for key in LABEL_KEYS:
        try:
            value = json.loads(props.get(key, ""))
        except ValueError:
            continue
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
    beside = path.with_suffix(".labels.txt")
    return tuple(beside.read_text("utf-8").splitlines()) if beside.is_file() else ()
