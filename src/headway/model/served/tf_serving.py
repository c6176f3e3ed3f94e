"""TensorFlow Serving: a folder of versions, each a SavedModel; how it batched, where ``batching_parameters.txt`` lies with them.

tensorflow/serving, ``tensorflow_serving/g3doc/serving_config.md``: the highest version is served; batching is described in a file that
the server is given beside the model.
"""

from __future__ import annotations

from pathlib import Path

from headway.model.served._files import inside, versions
from headway.model.served._model_file import door_of
from headway.model.served._pbtxt import read_message
from headway.model.served.contract import Inside, ServedBy

LOOKS_LIKE = "TF Serving: a numbered folder with saved_model.pb, such as 1/saved_model.pb"
BATCHING = "batching_parameters.txt"
SERVER = "TF Serving"


def fits(folder: Path) -> bool:
    """Whether a version is a SavedModel."""
    return any((each / "saved_model.pb").is_file() for each in versions(folder).values())


def find(source: Path, place: Path) -> Inside:
    """The highest version that is a SavedModel.

    Raises:
        ModelError: it is not whole, or leads out of the folder.
    """
    found = {number: each for number, each in versions(source).items() if (each / "saved_model.pb").is_file()}
    number, folder = max(found.items())
    path = inside(source, folder.name)
    notes = [f"version {number} is taken, the highest of {', '.join(map(str, found))}"] if len(found) > 1 else []
    door = door_of(path, source)
    served_by = None
    if (source / BATCHING).exists():
        served_by, remark = _served_by(inside(source, BATCHING))
        notes += remark
    return Inside(door=door, path=path, served_by=served_by, notes=tuple(notes))


def _served_by(path: Path) -> tuple[ServedBy | None, list[str]]:
    told = read_message(path, "BatchingParameters")
    if not told.HasField("max_batch_size"):
        return None, [f"{BATCHING} names no max_batch_size: how {SERVER} batched is not known"]
    return ServedBy(
        server=SERVER, instances=told.num_batch_threads.value if told.HasField("num_batch_threads") else None,
        max_batch=told.max_batch_size.value, max_wait_s=told.batch_timeout_micros.value / 1e6, preferred=tuple(told.allowed_batch_sizes),
    ), []  # fmt: skip
