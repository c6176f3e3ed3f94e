"""Batches of calls through the sessions of one variant: join, run, slice, encode. It runs on the batcher's threads.

Calls are joined along their first dimension. Only calls whose other dimensions are equal can be joined, so a batch is split
into groups of equal shapes, each its own run. When a joined run fails, its calls are run one by one, so that one request
that the model cannot take (an index out of range) does not fail its neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np

from headway.records import TensorSpec
from headway.runtime import Session
from headway.serve.answer import Answer, Encoder, respond_refusal
from headway.serve.refusal import Refusal
from headway.serve.wire import Call, batchable

JOINED_BYTES = 256 * 2**20
"""Memory that one instance may keep for joining inputs [B]; larger batches are joined in fresh memory."""

_STOPPED = respond_refusal(Refusal(503, "draining", "the server had to shut down before the answer was ready; send the request again"))


class Engine:
    """The run function of a batcher: calls in, HTTP answers out."""

    def __init__(
        self, sessions: Sequence[Session], inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], max_batch: int, encoder: Encoder
    ) -> None:
        self._sessions = tuple(sessions)
        self._encoder = encoder
        self._joins = batchable(inputs, outputs)
        self._stopped = False
        self._space = tuple(_space(inputs, max_batch) if self._joins else {} for _ in self._sessions)

    def stop(self) -> None:
        """Run nothing any more: nobody waits for the answers. From any thread."""
        self._stopped = True

    def run(self, instance: int, calls: Sequence[Call]) -> list[Answer]:
        """The answers to ``calls``, in their order, from the session of ``instance``."""
        if self._stopped:
            return [_STOPPED] * len(calls)
        if not self._joins:
            return [self._alone(instance, call) for call in calls]
        if all(call.shapes == calls[0].shapes for call in calls):
            return self._group(instance, calls)
        answers: list[Answer | None] = [None] * len(calls)
        places = sorted(range(len(calls)), key=lambda place: calls[place].shapes or ())
        for _, group in groupby(places, key=lambda place: calls[place].shapes):
            members = list(group)
            for place, answer in zip(members, self._group(instance, [calls[place] for place in members]), strict=True):
                answers[place] = answer
        return [answer for answer in answers if answer is not None]

    def _group(self, instance: int, calls: Sequence[Call]) -> list[Answer]:
        if len(calls) == 1:
            return [self._alone(instance, calls[0])]
        rows = sum(call.rows for call in calls)
        try:
            results = self._sessions[instance].run(self._join(instance, calls, rows))
            if any(len(result) != rows for result in results.values()):
                raise ValueError("an output has another number of rows than the inputs")
        except Exception:
            return [self._alone(instance, call) for call in calls]
        answers, first = [], 0
        for call in calls:
            answers.append(self._encoder.encode(call, results, first, first + call.rows))
            first += call.rows
        return answers

    def _alone(self, instance: int, call: Call) -> Answer:
        feeds = {name: array if array.flags.aligned else array.copy() for name, array in call.feeds.items()}
        try:
            return self._encoder.encode(call, self._sessions[instance].run(feeds), 0, None)
        except Exception as error:
            return respond_refusal(Refusal(500, "model_failed", f"the model could not run on this input: {_first_line(error)}"))

    def _join(self, instance: int, calls: Sequence[Call], rows: int) -> dict[str, np.ndarray]:
        joined = {}
        for name in calls[0].feeds:
            space = self._space[instance].get(name)
            out = space[:rows] if space is not None and rows <= len(space) else None
            joined[name] = np.concatenate([call.feeds[name] for call in calls], out=out)
        return joined


def _space(inputs: Sequence[TensorSpec], max_batch: int) -> Mapping[str, np.ndarray]:
    """Memory for whole batches of inputs with fixed sizes: fresh memory for a large batch costs a page fault every 4 KiB."""
    space = {}
    for spec in inputs:
        sizes = [size for size in spec.shape[1:] if isinstance(size, int)]
        if len(sizes) == len(spec.shape) - 1:
            dtype = np.dtype(spec.dtype)
            if max_batch * int(np.prod(sizes)) * dtype.itemsize * len(inputs) <= JOINED_BYTES:
                space[spec.name] = np.empty((max_batch, *sizes), dtype)
    return space


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
