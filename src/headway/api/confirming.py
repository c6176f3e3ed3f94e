"""Quality on the report part, which nothing has touched before: of the few that may be promised, before they are loaded over HTTP."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property

from headway.api.prepare import Prepared
from headway.api.run import Run
from headway.api.variants import Scorer
from headway.records import Candidate, HeadwayError, Variant


class Confirmation:
    """Scores candidates on the report part, each variant and runtime once."""

    def __init__(self, run: Run, prepared: Prepared, parent: Variant, variants: Mapping[str, Variant]) -> None:
        self._run, self._prepared, self._parent, self._variants = run, prepared, parent, variants

    def passed(self, candidates: Iterable[Candidate]) -> Iterator[Candidate]:
        """Those that keep the bounds on quality there, too; the others on the way are rejected with the reason.

        Many were looked at on the selection part, and the fastest that seemed good there may owe it to chance. It is better refused before it is
        loaded over HTTP than after, when nobody is left to take its place.
        """
        for candidate in candidates:
            try:
                broken = self.broken(candidate)
            except HeadwayError as error:
                broken = str(error)
            if broken is None:
                yield candidate
            else:
                self._run.reject("confirm", candidate.variant, candidate.plan, f"on the report part: {broken}")

    def broken(self, candidate: Candidate) -> str | None:
        """The bound on quality that a candidate breaks on the report part, in a sentence; none when it breaks none. Recorded."""
        found = self._scorer.score(self._variants[candidate.variant], candidate.plan.runtime, race=False)
        return found.reason if found.verdict == "violated" else None

    @cached_property
    def _scorer(self) -> Scorer:
        self._run.progress.step("confirm quality on the report part")
        return Scorer(self._run, self._prepared, "report", self._prepared.parts.report, self._parent)
