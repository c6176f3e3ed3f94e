"""A TensorBoard log folder, ``RUN/tensorboard``; see it with ``tensorboard --logdir RUN/tensorboard``. No TensorFlow needed."""

from __future__ import annotations

import json
import time
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.scalar.metadata import create_summary_metadata as scalar_metadata
from tensorboard.plugins.text.metadata import create_summary_metadata as text_metadata
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.util.tensor_util import make_tensor_proto

from headway.records import Record
from headway.track.figures import figures, notes


def open(run_folder: Path, name: str, config: dict[str, object]) -> TensorBoard:
    """A tracker that writes event files below ``RUN/tensorboard/NAME``; the configuration is its first text."""
    tracker = TensorBoard(run_folder / "tensorboard" / name)
    tracker.text("config", json.dumps(config, indent=2, sort_keys=True, default=str))
    return tracker


class TensorBoard:
    """Scalars over their own axis (batch size, offered rate, round) and texts, through TensorBoard's own writer."""

    def __init__(self, folder: Path) -> None:
        self._writer = EventFileWriter(str(folder))

    def log(self, record: Record) -> None:
        """Write a record's figures as scalars and its notes as texts."""
        for figure in figures(record):
            metadata = scalar_metadata(figure.tag, figure.axis)
            self._write(Summary.Value(tag=figure.tag, tensor=make_tensor_proto(float(figure.value)), metadata=metadata), round(figure.step))
        for tag, text in notes(record):
            self.text(tag, text)

    def text(self, tag: str, text: str) -> None:
        """Write one text, shown as a code block so that no markup in it counts."""
        block = "\n".join(f"    {line}" for line in text.splitlines())
        value = Summary.Value(tag=tag, tensor=make_tensor_proto(block.encode("utf-8")), metadata=text_metadata(tag, ""))
        self._write(value, 0)

    def close(self) -> None:
        """Flush and close the event file."""
        self._writer.close()

    def _write(self, value: Summary.Value, step: int) -> None:
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=[value])))
