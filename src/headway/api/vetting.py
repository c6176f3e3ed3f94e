"""Guards on the few that matter: what the objective asks beyond answers on plain samples, measured for finalists and confirmed for the winner."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property

import numpy as np
import onnx

from headway.api.prepare import Prepared
from headway.api.run import Run
from headway.api.variants import SCORING_BATCH
from headway.data import Dataset
from headway.measure.scoring import answers
from headway.model import Model
from headway.quality import asked, measure_guard, remembering
from headway.quality.guards.contract import Answer
from headway.records import Candidate, GuardResult, Plan, Variant


class Vetting:
    """Measures the guards of an objective on one part of the data, each variant and runtime once; the parent's answers are kept."""

    def __init__(self, run: Run, prepared: Prepared, parent: Variant, part: str, dataset: Dataset) -> None:
        self._run, self._prepared, self._parent, self._part, self._dataset = run, prepared, parent, part, dataset
        self._parent_answer = remembering(self._through(parent, "onnx_runtime"))

    def passed(self, variants: dict[str, Variant], candidates: Iterable[Candidate], most: int) -> Iterator[Candidate]:
        """The first ``most`` candidates that break no guard's bound; the others on the way there are rejected with the reason."""
        count = 0
        for candidate in candidates:
            if count == most:
                return
            broken = self.broken(variants[candidate.variant], candidate.plan.runtime)
            if broken is None:
                count += 1
                yield candidate
            else:
                self._run.reject("guard", candidate.variant, candidate.plan, broken)

    def broken(self, variant: Variant, runtime: str) -> str | None:
        """The first bound that a variant breaks through a runtime, in one sentence; none when it breaks none. Recorded."""
        for name in asked(self._run.objective):
            found = self._known(name, variant, runtime) or self._measure(name, variant, runtime)
            if found.verdict == "violated":
                return found.reason
        return None

    def _known(self, name: str, variant: Variant, runtime: str) -> GuardResult | None:
        key = (name, variant.name, runtime, self._part)
        return next((g for g in self._run.journal.of(GuardResult) if (g.guard, g.variant, g.runtime, g.part) == key), None)

    def _measure(self, name: str, variant: Variant, runtime: str) -> GuardResult:
        self._run.progress.step(f"{name}: {variant.name} on {runtime}, {self._part} part")
        return self._run.add(
            measure_guard(
                name, variant=variant.name, runtime=runtime, part=self._part, metric=self._prepared.metric,
                answer=self._through(variant, runtime), parent_answer=self._parent_answer, dataset=self._dataset, objective=self._run.objective,
                seed=self._run.config.seed, model=self._graph(variant), parent_model=self._parent_graph,
            )
        )  # fmt: skip

    @cached_property
    def _parent_graph(self) -> Model:
        return self._graph(self._parent)

    def _graph(self, variant: Variant) -> Model:
        return Model.from_proto(onnx.load(str(self._run.folder / variant.path)), variant.name, variant.origin)

    def _through(self, variant: Variant, runtime: str) -> Answer:
        """Answers of a variant, under the parent's output names."""
        plan = Plan(runtime=runtime, threads=self._prepared.cores)
        path = self._run.folder / variant.path

        def answer(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            names = [output.name for output in self._parent_graph.outputs]
            return dict(zip(names, answers(path, plan, dict(inputs), batch=SCORING_BATCH).values(), strict=True))

        return answer
