"""One model with its plain and a few quickly compressed variants, and every plan of a small space, by the functions that ``tune`` uses."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "compression"))

import cases  # noqa: E402

from headway.api.config import TuneConfig  # noqa: E402
from headway.api.curves import curve_of, predictions  # noqa: E402
from headway.api.prepare import Prepared, begin, prepare  # noqa: E402
from headway.api.progress import Silent  # noqa: E402
from headway.api.run import Run, open_folder  # noqa: E402
from headway.api.variants import Scored, Scorer, consider, make_variant  # noqa: E402
from headway.records import Prediction, Step, Variant, parse_objective  # noqa: E402
from headway.search import splits  # noqa: E402
from headway.track import open_trackers  # noqa: E402

FOLD = Step(technique="fold", settings={})
RECIPES: tuple[tuple[Step, ...], ...] = (
    (FOLD,),
    (FOLD, Step(technique="quantize_static", settings={"calibrator": "min_max"})),
    (FOLD, Step(technique="precision", settings={"type": "bfloat16"})),
    (FOLD, Step(technique="quantize_dynamic", settings={})),
)
Say = Callable[[str], None]


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        slo: a bound on latency alone: quality decides nothing here, so that every variant stays.
        batches: batch limits of the space.
        shortest_s, longest_s, trials: of each plan's capacity search in the exhaustive test.
        rounds, top: of the rematch, and how many of the exhaustive test's best take part.
    """

    model: str
    slo: str
    batches: tuple[int, ...]
    recipes: tuple[tuple[Step, ...], ...]
    shortest_s: float
    longest_s: float
    trials: int
    rounds: int
    top: int


FULL = Size("vision", "p95<=60ms", (1, 2, 4, 8, 16), RECIPES, 1.2, 2.0, 5, 4, 2)
QUICK = Size("digits", "p95<=20ms", (1, 8), RECIPES[:2], 0.3, 0.3, 2, 2, 1)


@dataclass(frozen=True)
class Space:
    """Everything that is to be compared, ready to be loaded.

    Attributes:
        alive: every variant on every runtime that takes it.
        plans: what simulation expects of every plan of the space.
    """

    size: Size
    run: Run
    prepared: Prepared
    variants: dict[str, Variant]
    alive: tuple[Scored, ...]
    plans: tuple[Prediction, ...]

    @property
    def plain(self) -> frozenset[str]:
        """Variants that change no answers."""
        return frozenset(name for name, variant in self.variants.items() if not variant.compressed)

    def path(self, variant: str) -> Path:
        """A variant's file."""
        return self.run.folder / self.variants[variant].path


@contextmanager
def opened(folder: Path, config: TuneConfig) -> Iterator[Run]:
    """A new run in an empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    journal = open_folder(folder, resume=False)
    try:
        yield Run(folder, config, parse_objective(config.slo), journal, Silent(), open_trackers((), folder, {}))
    finally:
        journal.release()


@contextmanager
def space(size: Size, folder: Path, seed: int, say: Say) -> Iterator[Space]:
    """The model prepared, its variants made and scored, every split's curve measured, and every plan predicted."""
    bench = cases.prepare(size.model, say)
    config = TuneConfig(models=(str(bench.parent),), data=str(bench.case.data), slo=size.slo, out=str(folder), seed=seed, compare=False)
    prepared = prepare(config)
    with opened(folder, config) as run:
        begin(run, prepared)
        source = prepared.sources[0]
        base = make_variant(run, prepared, source, ())
        assert base is not None, "the parent model can be saved and run"
        scorer = Scorer(run, prepared, "selection", prepared.parts.selection, base)
        made = [base, *(variant for recipe in size.recipes if (variant := make_variant(run, prepared, source, recipe)) is not None)]
        alive = tuple(scored for variant in made for scored in consider(run, prepared, scorer, variant))
        say(f"{size.model}: {len(made)} variants, {len(alive)} with their runtimes")
        curves = [
            (scored, curve)
            for scored in alive
            for split in splits(prepared.cores)
            if (curve := curve_of(run, prepared, scored, split)) is not None
        ]
        plans = tuple(p for p in predictions(run, prepared, curves) if p.candidate.plan.max_batch in size.batches)
        yield Space(size, run, prepared, {variant.name: variant for variant in made}, alive, plans)
