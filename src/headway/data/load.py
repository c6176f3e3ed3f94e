"""One door for samples: the reference says which reader."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from headway.data.arrays import read_npz
from headway.data.dataset import Dataset
from headway.data.function import call
from headway.data.images import ImageSettings, read_images
from headway.data.table import read_parquet
from headway.records import DataError, TensorSpec

KINDS = "FILE.npz, FILE.parquet, a folder with one folder of images a class, or python:module:callable"


def load(reference: str, *, inputs: Sequence[TensorSpec] | None = None, images: ImageSettings | None = None) -> Dataset:
    """The samples that ``reference`` names.

    Args:
        reference: ``FILE.npz`` (arrays named as the model's inputs, ``label``; optional ``group``, ``cluster``, and ``labels`` with
            class names; ``label_OUTPUT`` for each labelled output of a model with several), ``FILE.parquet`` (columns of those names; list columns become 2-D), a folder with one folder of images a
            class, or ``python:module:callable`` returning a mapping of such arrays.
        inputs: the model's inputs; only an image folder needs them, for name, size, layout and type.
        images: how pixels become numbers; see ``ImageSettings``.

    Raises:
        DataError: nothing there, an unknown kind, or a file that cannot be read as its kind.
    """
    if reference.startswith("python:"):
        return call(reference)
    path = Path(reference).expanduser()
    if not path.exists():
        raise DataError(f"{reference}: the data must exist, got no such file or folder; give {KINDS}")
    if path.is_dir():
        return read_images(path, reference, inputs, images or ImageSettings())
    if path.suffix.lower() == ".npz":
        return read_npz(path, reference)
    if path.suffix.lower() in (".parquet", ".pq"):
        return read_parquet(path, reference)
    raise DataError(f"{reference}: the data must be {KINDS}; got a file ending in {path.suffix or 'nothing'!r}")
