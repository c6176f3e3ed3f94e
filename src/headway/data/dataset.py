"""Samples with their labels, groups and clusters; rows are the first axis of every array."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from headway.records import DataError

LABEL, GROUP, CLUSTER, CLASS_NAMES = "label", "group", "cluster", "labels"
TASK_LABEL = "label_"


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled samples.

    Attributes:
        inputs: arrays by the model's input names, rows first.
        labels: one a row (numbers, class indices or vectors), or none.
        groups: name of each row's group, as text, or none.
        clusters: rows with the same cluster are not independent (crops of one photo, clips of one speaker), or none.
        source: the reference it was loaded from.
        class_names: names of the classes, by class index; may be empty.
        tasks: labels by output name, where arrays ``label_OUTPUT`` were given; ``labels`` is then the first of them. See ``tasks.assign``.
    """

    inputs: dict[str, NDArray]
    labels: NDArray | None = None
    groups: NDArray | None = None
    clusters: NDArray | None = None
    source: str = ""
    class_names: tuple[str, ...] = ()
    tasks: dict[str, NDArray] = field(default_factory=dict)

    def __len__(self) -> int:
        return next((int(array.shape[0]) for array in self.inputs.values()), 0)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the content: names, types, shapes and values of every array; not of where it came from."""
        total = hashlib.sha256()
        named = {f"input/{name}": array for name, array in self.inputs.items()}
        named |= {LABEL: self.labels, GROUP: self.groups, CLUSTER: self.clusters}
        named |= {f"task/{name}": array for name, array in self.tasks.items()}
        for name, array in sorted(named.items()):
            if array is not None:
                total.update(repr((name, array.dtype.str, array.shape)).encode())
                total.update(np.ascontiguousarray(array).tobytes())
        total.update(repr(self.class_names).encode())
        return total.hexdigest()

    def take(self, indices: Sequence[int] | NDArray[np.intp]) -> Dataset:
        """The rows at ``indices``, in that order, as copies."""
        rows = np.asarray(indices, dtype=np.intp)
        return replace(
            self,
            inputs={name: array[rows] for name, array in self.inputs.items()},
            labels=None if self.labels is None else self.labels[rows],
            groups=None if self.groups is None else self.groups[rows],
            clusters=None if self.clusters is None else self.clusters[rows],
            tasks={name: array[rows] for name, array in self.tasks.items()},
        )


def dataset_from_arrays(arrays: Mapping[str, object], source: str) -> Dataset:
    """A Dataset from named arrays.

    ``label``, ``group`` and ``cluster`` are the reserved names (so no model input may be called that), ``labels`` holds class names
    as text; every other array is an input, until ``check`` tells ``label_OUTPUT`` apart, which needs a model. Labels given as text become class indices: by ``labels`` if given, else by the sorted
    names.

    Raises:
        DataError: an array of Python objects, an array without rows, arrays of different lengths, or no input.
    """
    held = {name: _plain(name, value, source) for name, value in arrays.items()}
    names = held.pop(CLASS_NAMES, None)
    if names is not None and (names.dtype.kind != "U" or names.ndim != 1):
        raise DataError(
            f"{source}: array {CLASS_NAMES!r} must hold the class names as text, got {names.dtype} of shape {names.shape}; "
            f"the label of each row goes into {LABEL!r}"
        )
    labels, groups, clusters = (held.pop(name, None) for name in (LABEL, GROUP, CLUSTER))
    if not held:
        raise DataError(f"{source}: must hold at least one array named as a model input, got {', '.join(arrays) or 'nothing'}")
    class_names = () if names is None else tuple(str(name) for name in names)
    if labels is not None and labels.dtype.kind == "U":
        labels, class_names = _indices(labels, class_names, source)
    if labels is not None and labels.dtype.kind == "b":
        labels = labels.astype(np.int64)
    for name, array in ((GROUP, groups), (CLUSTER, clusters)):
        if array is not None and array.ndim != 1:
            raise DataError(f"{source}: array {name!r} must hold one value a row, got shape {array.shape}")
    dataset = Dataset(held, labels, None if groups is None else groups.astype(np.str_), clusters, source, class_names)
    check_lengths(dataset)
    return dataset


def check_lengths(dataset: Dataset) -> None:
    """Nothing.

    Raises:
        DataError: arrays of different lengths.
    """
    lengths = {name: array.shape[0] for name, array in dataset.inputs.items()}
    special = {LABEL: dataset.labels, GROUP: dataset.groups, CLUSTER: dataset.clusters}
    lengths |= {name: array.shape[0] for name, array in special.items() if array is not None}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise DataError(f"{dataset.source}: all arrays must have the same number of rows, got {found}; give one value a row in each")


def _plain(name: str, value: object, source: str) -> NDArray:
    try:
        array = np.asarray(value)
    except Exception as error:
        raise DataError(f"{source}: {name!r} must be an array of numbers, got {type(value).__name__}: {error}") from error
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8", "replace")
    if array.dtype.kind not in "biufU":
        raise DataError(
            f"{source}: array {name!r} must hold numbers or text, got {array.dtype}; "
            "rows of different lengths must be padded to one length, Python objects cannot be read"
        )
    if array.ndim == 0:
        raise DataError(f"{source}: array {name!r} must have rows as its first axis, got a single value")
    return array


def _indices(labels: NDArray, class_names: tuple[str, ...], source: str) -> tuple[NDArray, tuple[str, ...]]:
    names = class_names or tuple(sorted(str(name) for name in np.unique(labels)))
    number = {name: index for index, name in enumerate(names)}
    unknown = next((str(label) for label in labels.ravel() if str(label) not in number), None)
    if unknown is not None:
        raise DataError(f"{source}: every label must be one of the class names in {CLASS_NAMES!r}, got {unknown!r}; add it there")
    return np.array([number[str(label)] for label in labels.ravel()], dtype=np.int64).reshape(labels.shape), names
