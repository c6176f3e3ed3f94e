"""Drop whole residual blocks, those whose absence changes the answers least (Veit et al., arXiv 1605.06431, sec. 4; LayerDrop, 1909.11556).

Each block that ends in an Add of its own entry is left out in turn on the calibration samples; the one of least harm goes, then again. After a
post-norm block the normalisation goes too where that harms less. What was dropped is logged by name.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from onnx import ModelProto

from headway.compress.blocks import Block, blocks, chains, without
from headway.compress.context import Context
from headway.compress.graph import normalise, why_not_float
from headway.compress.session import batches, open_cpu, relative_error, run
from headway.compress.settings import read_settings
from headway.compress.techniques.contract import Range, Space
from headway.model import Model
from headway.records import ConfigError, Setting, Unsupported

ORDER = 10
HARSHNESS = 6
FOLLOWS: tuple[str, ...] = ()
LARGEST_ERROR = 3.0
BATCH = 8
DEFAULTS: dict[str, Setting] = {"drop": 1.0, "span": 1, "rows": 64}

_log = logging.getLogger(__name__)


def ladder(model: Model, context: Context) -> tuple[dict[str, Setting], ...]:
    """One block, a sixth, a third; no rung twice."""
    if refuse(model, context):
        return ()
    count = len(_analysed(model, context).found)
    wanted = sorted({1, max(1, round(count / 6)), max(1, round(count / 3))})
    return tuple({"drop": float(number)} for number in wanted if number < count or number == 1)


def space(model: Model, context: Context) -> Space:
    """Any count up to half of the blocks."""
    if refuse(model, context):
        return {}
    count = len(_analysed(model, context).found)
    return {"drop": Range(1.0, float(max(1, min(count - 1, round(count / 2)))), whole=True)}


def refuse(model: Model, context: Context) -> str | None:
    """Needs a float model with a residual block, and samples to choose by."""
    return _analysed(model, context).reason


def apply(model: Model, settings: dict[str, Setting], context: Context) -> Model:
    """The shorter model.

    Settings: ``drop``, runs of blocks to drop: a count, or below 1 the share of the blocks; ``span``, blocks that go together (2: attention and
    feed-forward of one Transformer layer); ``rows``, samples that judge. Fewer go when none is left.

    Raises:
        ConfigError: a setting is not known or out of range.
        Unsupported: there is no block, or not one run of ``span``.
    """
    chosen = read_settings("drop_blocks", settings, DEFAULTS)
    drop, span, rows = float(chosen["drop"]), int(chosen["span"]), int(chosen["rows"])
    if drop <= 0 or (drop > 1 and drop % 1) or span < 1 or rows < 1:
        raise ConfigError(
            f"drop_blocks: drop must be a share below 1 or a whole count, span and rows at least 1, got {drop}, {span}, {rows}"
        )
    analysed = _analysed(model, context)
    if analysed.reason:
        raise Unsupported(analysed.reason)
    proto, runs = analysed.proto, chains(analysed.found, span)
    if not runs:
        raise Unsupported(f"drop_blocks: no {span} residual blocks follow each other; use a smaller span")
    reference = _answers(proto, context, rows)
    for left in reversed(range(int(drop) if drop >= 1 else max(1, int(drop * len(runs))))):
        proto, names, harm = _least_harm(proto, runs, reference, context, rows)
        _log.info("drop_blocks: dropped %s; answers now differ by %.3g", ", ".join(names), harm)
        runs = chains(blocks(proto, context.samples), span) if left else ()
        if not runs:
            break
    return Model.from_proto(proto, model.name, model.origin)


@dataclass(frozen=True)
class _Analysed:
    proto: ModelProto
    found: tuple[Block, ...]
    reason: str | None


@lru_cache(maxsize=2)  # what is offered, refused and carried out looks at one graph, which stays as it is
def _analysed(model: Model, context: Context) -> _Analysed:
    proto = normalise(model.to_proto())
    reason = why_not_float(proto, "drop before quantizing")
    if reason:
        return _Analysed(proto, (), f"drop_blocks: {reason}")
    if not context.rows:
        return _Analysed(proto, (), "drop_blocks: needs calibration samples to tell which block matters least, got none")
    try:
        found = blocks(proto, context.samples)
    except Unsupported as error:
        return _Analysed(proto, (), f"drop_blocks: {error}".replace("\n", " ").strip())
    none = "drop_blocks: the graph holds no residual block: no Add joins a value with what a layer makes of it in the same shape"
    return _Analysed(proto, found, None if found else none)


_Step = tuple[ModelProto, tuple[str, ...], float]


def _least_harm(
    proto: ModelProto, runs: tuple[tuple[Block, ...], ...], reference: list[list[np.ndarray]], context: Context, rows: int
) -> _Step:
    def dropped(chain: tuple[Block, ...], with_norm: bool) -> _Step:
        shorter = without(proto, chain, with_norm=with_norm)
        return shorter, _names(chain, with_norm), relative_error(reference, _answers(shorter, context, rows))

    norms = {True: (False, True), False: (False,)}
    tried = (dropped(chain, with_norm) for chain in runs for with_norm in norms[any(block.norm for block in chain)])
    return min(tried, key=lambda step: step[2])


def _answers(proto: ModelProto, context: Context, rows: int) -> list[list[np.ndarray]]:
    """Answers in small batches, so that memory does not grow with the rows."""
    session = open_cpu(proto)
    return [run(session, feeds) for feeds in batches(session, context.samples, rows=rows, size=BATCH)]


def _names(chain: tuple[Block, ...], with_norm: bool) -> tuple[str, ...]:
    return tuple(f"{block.name} with its normalisation" if with_norm and block.norm else block.name for block in chain)
