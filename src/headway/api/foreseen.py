"""Recipes of one source that other machines may carry out before they are asked for."""

from __future__ import annotations

from collections.abc import Iterable

from headway.api.composing import Climb, Recipe, Tried
from headway.api.placing import Ahead
from headway.api.prepare import Source
from headway.api.refining import first_scores, made_before
from headway.api.run import Run
from headway.api.variants import Piece, variant_name
from headway.cluster.tuning_work import Asking, Job
from headway.records import HeadwayError, Quality, Variant


class Foreseen:
    """Says which recipes will be asked for, as far as what is known tells, and gives what came of them.

    What will be asked for is found by following the same climbs that will ask, with what came of the recipes so far. A forecast that was wrong
    costs another machine's time and nothing else.
    """

    def __init__(self, run: Run, source: Source, ahead: Ahead) -> None:
        self._run, self._source, self._ahead = run, source, ahead

    def foresee(self, climbs: Iterable[Climb]) -> None:
        """Take note of climbs that will be followed; not where their time is over already."""
        if not self._run.over("compress"):
            self._ahead.foresee([self._asking(climb) for climb in climbs])

    def take(self, recipe: Recipe) -> Piece | None:
        """What came of a recipe elsewhere; none where it must be made here."""
        try:
            piece: Piece | None = self._ahead.take(self._job(recipe))
        except HeadwayError as error:
            return Piece(None, str(error))
        return piece

    def _job(self, recipe: Recipe) -> Job:
        return Job(variant_name(self._source.name, recipe), recipe)

    def _asking(self, climb: Climb) -> Asking:
        """A climb that asks for jobs; it ends where something cannot be known before its time."""
        try:
            wanted = next(climb)
            while True:
                known = {number: recalled for number, recipe in enumerate(wanted) if (recalled := self._recalled(recipe)) is not None}
                told = iter((yield [self._job(recipe) for number, recipe in enumerate(wanted) if number not in known]))
                tried = [known[number] if number in known else next(told) for number in range(len(wanted))]
                if None in tried:
                    return
                wanted = climb.send(tried)
        except StopIteration:
            return

    def _recalled(self, recipe: Recipe) -> Tried | None:
        """What the journal of a resumed run knows of a recipe."""
        if not made_before(self._run, self._source, recipe):
            return None
        name = variant_name(self._source.name, recipe)
        variant = next((old for old in self._run.journal.of(Variant) if old.name == name), None)
        return _tried(recipe, variant, [] if variant is None else first_scores(self._run, variant))


def tried_elsewhere(piece: Piece) -> Tried | None:
    """What a piece tells about what to ask for next; none where nobody judged it."""
    if piece.variant is None:
        return Tried((), None, 0, 0.0)
    if not piece.judged:
        return None
    return _tried(piece.variant.recipe, piece.variant, [seen.quality for seen in piece.judged.values() if seen.quality is not None])


def _tried(recipe: Recipe, variant: Variant | None, seen: list[Quality]) -> Tried:
    alive = sum(quality.verdict != "violated" for quality in seen)
    return Tried(recipe, variant, alive, max((quality.agreement for quality in seen), default=0.0))
