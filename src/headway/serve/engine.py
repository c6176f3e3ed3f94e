"""Batches of calls through the sessions of a model: join, run, slice, write the answers. It runs on the batcher's threads.

Calls are joined along their first dimension; the batcher puts only calls of equal shapes into a batch. When a joined run fails, its calls
are run one by one, so that one request that the model cannot take (an index out of range) does not fail its neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from headway.records import TensorSpec
from headway.runtime import Session
from headway.serve.call import Call
from headway.serve.padding import Padding
from headway.serve.refusal import Refusal
from headway.serve.wire import batchable

JOINED_BYTES = 256 * 2**20
"""Memory that one instance may keep for joining inputs [B]; larger batches are joined in fresh memory."""

_STOPPED = Refusal(503, "draining", "the server had to shut down before the answer was ready; send the request again")


class Outcome(NamedTuple):
    """A finished answer, the variant that computed it, and its status."""

    answer: Any
    variant: str
    status: int


class Level(NamedTuple):
    """One variant of a model, warm: its name, and a session for each instance."""

    variant: str
    sessions: Sequence[Session]


class Engine:
    """The run function of a batcher: calls in, finished answers out.

    Attributes:
        level: which of ``levels`` runs the next batch.
    """

    def __init__(
        self,
        levels: Sequence[Level],
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        max_batch: int,
        padding: Padding | None = None,
    ) -> None:
        self._padding = padding
        self.levels = tuple(levels)
        self.level = 0
        self._joins = batchable(inputs, outputs)
        self._stopped = False
        self._space = tuple(_space(inputs, max_batch) if self._joins else {} for _ in self.levels[0].sessions)

    def stop(self) -> None:
        """Run nothing any more: nobody waits for the answers. From any thread."""
        self._stopped = True

    def run(self, instance: int, calls: Sequence[Call]) -> list[Outcome]:
        """The answers to ``calls``, in their order, from the session of ``instance``."""
        if self._stopped:
            return [Outcome(call.form.refuse(_STOPPED), "", _STOPPED.status) for call in calls]
        level = self.levels[self.level]
        session = level.sessions[instance]
        if len(calls) == 1 or not self._joins:
            return [self._alone(session, level.variant, call) for call in calls]
        rows = sum(call.rows for call in calls)
        try:
            results = session.run(self._join(instance, calls, rows))
            if any(len(result) != rows for result in results.values()):
                raise ValueError("an output has another number of rows than the inputs")
        except Exception:
            return [self._alone(session, level.variant, call) for call in calls]
        answers, first = [], 0
        for call in calls:
            last = first + call.rows
            outputs = [(wanted, results[wanted.name][first:last]) for wanted in call.wanted]
            if self._padding is not None:
                outputs = [(wanted, self._padding.cut(wanted.name, array, call.feeds)) for wanted, array in outputs]
            answers.append(_answer(call, outputs, level.variant))
            first = last
        return answers

    def _alone(self, session: Session, variant: str, call: Call) -> Outcome:
        feeds = {name: array if array.flags.aligned else array.copy() for name, array in call.feeds.items()}
        try:
            results = session.run(feeds)
        except Exception as error:
            failed = Refusal(500, "model_failed", f"the model could not run on this input: {_first_line(error)}")
            return Outcome(call.form.refuse(failed), variant, failed.status)
        return _answer(call, [(wanted, results[wanted.name]) for wanted in call.wanted], variant)

    def _join(self, instance: int, calls: Sequence[Call], rows: int) -> dict[str, np.ndarray]:
        joined = {}
        for name in calls[0].feeds:
            if self._padding is not None:
                joined[name] = self._padding.join(name, [call.feeds[name] for call in calls])
                continue
            space = self._space[instance].get(name)
            out = space[:rows] if space is not None and rows <= len(space) else None
            joined[name] = np.concatenate([call.feeds[name] for call in calls], out=out)
        return joined


def _answer(call: Call, outputs: list[tuple[Any, np.ndarray]], variant: str) -> Outcome:
    try:
        return Outcome(call.form.answer(call, outputs, variant), variant, 200)
    except Refusal as refusal:
        return Outcome(call.form.refuse(refusal), variant, refusal.status)
    except Exception as error:
        failed = Refusal(500, "encoding", f"the answer could not be written: {_first_line(error)}")
        return Outcome(call.form.refuse(failed), variant, failed.status)


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
