"""A Weights & Biases run in ``RUN/wandb``, offline unless WANDB_MODE says otherwise; send it later with ``wandb sync``."""

from __future__ import annotations

import os
from pathlib import Path

import wandb

from headway.records import Record
from headway.track.figures import Figure, figures, notes


def open(run_folder: Path, name: str, config: dict[str, object]) -> WeightsAndBiases:
    """A tracker that writes ``RUN/wandb/offline-run-*``; nothing leaves the machine while WANDB_MODE is unset.

    The host's name, the source code, git state and system metrics are not recorded.
    """
    # The library's own core process reports its crashes home, offline mode or not; it reads this when it starts.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    settings = wandb.Settings(
        silent=True,
        console="off",
        host="",
        disable_git=True,
        disable_code=True,
        save_code=False,
        disable_job_creation=True,
        x_disable_stats=True,
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
    )
    run_folder.mkdir(parents=True, exist_ok=True)
    run = wandb.init(
        mode=os.environ.get("WANDB_MODE", "offline"),
        dir=str(run_folder),
        project=os.environ.get("WANDB_PROJECT", "headway"),
        name=name,
        config=config,
        settings=settings,
        reinit="create_new",
    )
    return WeightsAndBiases(run)


class WeightsAndBiases:
    """Curves over their own axis in the run's history; single numbers and texts in its summary."""

    def __init__(self, run: wandb.Run) -> None:
        self._run = run
        self._axes: set[str] = set()

    def log(self, record: Record) -> None:
        """Keep a record's figures and notes."""
        rows: dict[tuple[str, float], dict[str, float]] = {}
        for figure in figures(record):
            if figure.axis:
                rows.setdefault((self._axis(figure), figure.step), {})[figure.tag] = figure.value
            else:
                self._run.summary[figure.tag] = figure.value
        for (axis, step), row in rows.items():
            self._run.log({**row, axis: step})
        for tag, text in notes(record):
            self._run.summary[tag] = text

    def close(self) -> None:
        """Finish the run: everything is on disk afterwards."""
        self._run.finish()

    def _axis(self, figure: Figure) -> str:
        axis = f"{figure.series}/{figure.axis}"
        if axis not in self._axes:
            self._axes.add(axis)
            self._run.define_metric(axis, hidden=True)
            self._run.define_metric(f"{figure.series}/*", step_metric=axis)
        return axis
