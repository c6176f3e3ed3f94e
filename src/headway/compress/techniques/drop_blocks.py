"""Drop whole residual blocks, those whose absence changes the answers least (Veit et al., arXiv 1605.06431, sec. 4; LayerDrop, 1909.11556).

Each block that ends in an Add of its own entry is left out in turn on the calibration samples; the one of least harm goes, then again. After a
post-norm block the normalisation goes too where that harms less. What was dropped is logged by name.
"""

from __future__ import annotations

import logging

import numpy as np
from onnx import ModelProto

from headway.compress.blocks import Block, blocks, chains, without
from headway.compress.context import Context
from headway.compress.graph import first_integer_node, normalise
from headway.compress.session import answers, relative_error
from headway.compress.settings import read_settings
from headway.model import Model
from headway.records import ConfigError, Setting, Unsupported

ORDER = 10
HARSHNESS = 6
FOLLOWS: tuple[str, ...] = ()
LARGEST_ERROR = 3.0
DEFAULTS: dict[str, Setting] = {"drop": 1.0, "span": 1, "rows": 64}

_log = logging.getLogger(__name__)


def ladder(model: Model, context: Context) -> tuple[dict[str, Setting], ...]:
    """One block, a sixth, a third; no rung twice."""
    if refuse(model, context):
        return ()
    count = len(blocks(normalise(model.to_proto()), context.samples))
    wanted = sorted({1, max(1, round(count / 6)), max(1, round(count / 3))})
    return tuple({"drop": float(number)} for number in wanted if number < count or number == 1)


def refuse(model: Model, context: Context) -> str | None:
    """Needs a float model with a residual block, and samples to choose by."""
    proto = normalise(model.to_proto())
    integer = first_integer_node(proto)
    if integer is not None:
        return (
            f"drop_blocks: the model must be float, but node {integer.name!r} ({integer.op_type}) works on integers; drop before quantizing"
        )
    if not context.rows:
        return "drop_blocks: needs calibration samples to tell which block matters least, got none"
    try:
        found = blocks(proto, context.samples)
    except Unsupported as error:
        return str(error).replace("\n", " ").strip()
    if not found:
        return "drop_blocks: the graph holds no residual block: no Add joins a value with what a layer makes of it in the same shape"
    return None


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
    reason = refuse(model, context)
    if reason:
        raise Unsupported(reason)
    proto = normalise(model.to_proto())
    runs = chains(blocks(proto, context.samples), span)
    if not runs:
        raise Unsupported(f"drop_blocks: no {span} residual blocks follow each other; use a smaller span")
    reference = answers(proto, context.samples, rows)
    for _ in range(int(drop) if drop >= 1 else max(1, int(drop * len(runs)))):
        step = _least_harm(proto, span, reference, context, rows)
        if step is None:
            break
        proto, names, harm = step
        _log.info("drop_blocks: dropped %s; answers now differ by %.3g", ", ".join(names), harm)
    return Model.from_proto(proto, model.name, model.origin)


def _least_harm(
    proto: ModelProto, span: int, reference: list[list[np.ndarray]], context: Context, rows: int
) -> tuple[ModelProto, tuple[str, ...], float] | None:
    best: tuple[ModelProto, tuple[str, ...], float] | None = None
    for run in chains(blocks(proto, context.samples), span):
        for with_norm in (False, True) if any(block.norm for block in run) else (False,):
            shorter = without(proto, run, with_norm=with_norm)
            harm = relative_error(reference, answers(shorter, context.samples, rows))
            if best is None or harm < best[2]:
                best = shorter, _names(run, with_norm), harm
    return best


def _names(run: tuple[Block, ...], with_norm: bool) -> tuple[str, ...]:
    return tuple(f"{block.name} with its normalisation" if with_norm and block.norm else block.name for block in run)
