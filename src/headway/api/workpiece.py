"""One recipe carried out and judged, as a function of plain values: the same in this process and on another machine.

``Shop`` holds all that the recipes of one source need and travels once; a ``Piece`` is what comes back: the record of the variant, its file, and what
each runtime made of it.
"""

from __future__ import annotations

import functools
import importlib.util
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from headway.api.variants import Judge, Judged, Piece, Recipe, save
from headway.compress import Context, make
from headway.measure.environment import environment
from headway.model import Model
from headway.records import Environment, HeadwayError, Unsupported, Variant
from headway.runtime import census, hopeless, refuse


@dataclass(frozen=True, eq=False)
class Shop:
    """All that the recipes of one source need; models travel as ONNX.

    Attributes:
        home: the machine that decides; answers are judged only where they are computed as they are there.
        torch_threads: threads of PyTorch there, since sums depend on their number; 0 without PyTorch.
    """

    source: str
    model: Model
    context: Context
    judge: Judge
    runtimes: tuple[str, ...]
    home: Environment
    torch_threads: int = 0

    def __reduce__(self) -> tuple[object, ...]:
        teacher = self.context.parent
        packed = (_packed(self.model), None if teacher is None else _packed(teacher))
        rest = (self.source, replace(self.context, parent=None), self.judge, self.runtimes, self.home, self.torch_threads)
        return _unpacked_shop, (*packed, *rest)


def torch_threads() -> int:
    """Threads that PyTorch uses in this process; 0 where it is not installed."""
    if importlib.util.find_spec("torch") is None:
        return 0
    import torch

    return int(torch.get_num_threads())


def worked(shop: Shop, recipe: Recipe, _: Path | None) -> Piece:
    """One recipe carried out on this machine and, where it computes as home does, judged on every runtime."""
    _use_threads(shop.torch_threads)
    with tempfile.TemporaryDirectory(prefix="headway-") as name:
        folder = Path(name)
        try:
            made = make(shop.model, recipe, shop.context)
        except HeadwayError as error:
            return Piece(None, str(error))
        variant = save(shop.source, shop.model, recipe, made, shop.context.samples, folder)
        path = folder / variant.path
        seen = {runtime: _judged(shop.judge, variant, runtime, path) for runtime in shop.runtimes} if _computes_as(shop.home) else {}
        return Piece(variant, "", {file.name: file.read_bytes() for file in path.parent.iterdir()}, seen)


def _judged(judge: Judge, variant: Variant, runtime: str, path: Path) -> Judged:
    refusal = refuse(runtime, path)
    if refusal is not None:
        return Judged(refusal=refusal)
    try:
        counted = census(runtime, path, variant.name)
    except Unsupported:
        counted = None
    if counted is not None and variant.compressed and hopeless(counted) is not None:
        return Judged(counted=counted)
    score = judge.raced if variant.compressed else judge.measured
    try:
        return Judged(counted=counted, quality=score(variant, runtime, path))
    except HeadwayError as error:
        return Judged(counted=counted, error=str(error))


@functools.cache
def _own() -> Environment:
    return environment()


def _computes_as(home: Environment) -> bool:
    """Whether this machine's answers are home's: the same instructions, and the same number of cores to split sums over."""
    own = _own()
    return (own.cpu, own.instruction_sets, own.cores) == (home.cpu, home.instruction_sets, home.cores)


def _use_threads(count: int) -> None:
    if count:
        import torch

        torch.set_num_threads(count)


def _packed(model: Model) -> tuple[bytes, str, str]:
    return model.to_bytes(), model.name, model.origin


def _unpacked(packed: tuple[bytes, str, str]) -> Model:
    content, name, origin = packed
    return Model.from_proto(onnx.load_from_string(content), name, origin)


def _unpacked_shop(
    model: tuple[bytes, str, str], teacher: tuple[bytes, str, str] | None, source: str, context: Context, judge: Judge,
    runtimes: tuple[str, ...], home: Environment, threads: int,
) -> Shop:  # fmt: skip
    taught = context if teacher is None else replace(context, parent=_unpacked(teacher))
    return Shop(source, _unpacked(model), taught, judge, runtimes, home, threads)
