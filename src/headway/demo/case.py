"""What a demo gives: a model, labelled samples, an objective from practice, and what they cannot show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from headway.records import ConfigError, HeadwayError, parse_objective

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Case:
    """One service to deploy.

    Attributes:
        title: a few words.
        story: one sentence: what the service is.
        model: reference as ``headway tune`` takes it.
        data: ``.npz`` with arrays named as the model's inputs, ``label``, and where they apply ``group``, ``cluster`` and ``labels``.
        objective: text of the objective.
        metric: name of the metric.
        train: rows to learn from, in the same form; none when there are none.
        notes: what was measured while building, and honest limits.
    """

    title: str
    story: str
    model: str
    data: Path
    objective: str
    metric: str
    train: Path | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        parse_objective(self.objective)
        empty = [name for name in ("title", "story", "model", "metric") if not getattr(self, name)]
        if empty:
            raise ConfigError(f"a demo's case must have a {empty[0]}, got empty text; give one")


def require(name: str, what: str, value: float, floor: float) -> None:
    """Nothing, when a demo's model is as good as it is known to be.

    Raises:
        HeadwayError: ``value`` is below ``floor``: something in the packages or the training is not what it was.
    """
    if not value >= floor:
        raise HeadwayError(
            f"demo {name}: {what} must be at least {floor:g} before anything is compressed, got {value:.4g}; "
            "the packages or the training differ from those that the demo was made with: delete the demo's cache folder and try again"
        )
