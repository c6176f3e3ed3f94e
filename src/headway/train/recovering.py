"""Train a graph: towards labels, towards teachers, or both; the way back into the graph is ``lift``'s."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from headway.lift import Lifted, lift, write_back
from headway.model import Model
from headway.records import ConfigError, DataError
from headway.train.aims import aims
from headway.train.attack import Attacker
from headway.train.history import Epoch, Report
from headway.train.judging import Judge
from headway.train.limits import Limits, pruned, scale_names
from headway.train.loop import Loop
from headway.train.objective import Goal
from headway.train.repeatable import fingerprint, repeatable
from headway.train.rows import Array, HasRows, Labels, Rows, check
from headway.train.settings import Settings
from headway.train.starting import begin_from
from headway.train.teaching import Teacher, Teaching, teacher

SEEN_ROWS = 256


@dataclass(frozen=True)
class Recovered:
    """The trained model, and how it came there.

    Attributes:
        history: one entry an epoch; the first is the model as it came.
        steps: optimiser steps done.
        stopped: why it ended, in a few words.
    """

    model: Model
    history: tuple[Epoch, ...]
    steps: int
    stopped: str


def recover(
    model: Model,
    *,
    inputs: Mapping[str, Array],
    labels: Labels = None,
    teachers: Sequence[Model] = (),
    selection: HasRows | None = None,
    settings: Settings | None = None,
    report: Report | None = None,
    folder: Path | None = None,
    start: Model | None = None,
) -> Recovered:
    """A model of the same graph with trained values; the given one is untouched. Same arguments, same bytes (on one machine and thread count).

    Args:
        inputs: rows to learn from: one array per model input, first axis the row.
        labels: one array for the first output, or one by output name; none: the teachers alone are learned from.
        teachers: models with the same inputs and outputs.
        selection: rows that decide which epoch's weights are kept, the model as it came included; none: the last ones are.
        report: called after every step.
        folder: checkpoints are written there after every epoch, and a training that was cut off goes on from there, to the same bytes.
        start: a model from before quantization, to start the hidden float weights from instead of the rounded ones.

    Raises:
        Unsupported: the graph cannot be lifted; the sentence names the node.
        ConfigError: settings that do not fit the model, or a folder with another training's checkpoint.
        DataError: rows that do not fit the model.
    """
    settings = settings or Settings()
    rows = check(model, inputs, labels, "training rows")
    chosen = None if selection is None else check(model, selection.inputs, selection.labels, "selection rows")
    student = lift(model, learn_scales=settings.learn_scales)
    masks = pruned(student) if settings.keep_zeros else {}
    lifted = [lift(each) for each in teachers]
    if start is not None:
        again = next((own for each, own in zip(teachers, lifted, strict=True) if each is start), None)
        begin_from(student, lift(start) if again is None else again, masks)
    with repeatable(settings.seed) as generator:
        known = tuple(teacher(each, own, model) for each, own in zip(teachers, lifted, strict=True))
        seen = _seen(student, rows, known)
        goal = _goal(seen, rows, known, settings)
        scales = scale_names(model) & set(student.weights)
        loop = Loop(
            student, goal, _judge(seen, goal, chosen, settings), settings, Limits(student.weights, masks, scales), scales, generator,
            folder=folder, report=report,
            key=fingerprint([model, *teachers, *([start] if start else [])], [rows, chosen], settings) if folder else "",
        )  # fmt: skip
        loop.run()
    return Recovered(write_back(model, student), tuple(loop.history), loop.step, loop.stopped)


def distil(
    student: Model,
    parent: Model,
    *,
    inputs: Mapping[str, Array],
    labels: Labels = None,
    selection: HasRows | None = None,
    settings: Settings | None = None,
    report: Report | None = None,
    folder: Path | None = None,
) -> Recovered:
    """``student`` taught by ``parent``: ``recover`` with one teacher. Arguments and errors are those of ``recover``."""
    return recover(
        student, inputs=inputs, labels=labels, teachers=(parent,), selection=selection, settings=settings, report=report, folder=folder
    )  # fmt: skip


def _goal(seen: Mapping[str, Tensor], rows: Rows, known: tuple[Teacher, ...], settings: Settings) -> Goal:
    found = aims(seen, rows, settings.tasks, settings.distillation, taught=bool(known))
    untaught = [aim.output for aim in found if not aim.labelled and not any(aim.output in each.outputs for each in known)]
    found = tuple(aim for aim in found if aim.output not in untaught)
    if not found and not settings.distillation.features:
        raise ConfigError(f"recover: no teacher has any of the outputs {', '.join(untaught)}, and they have no labels; give labels")
    asked = known if settings.distillation.weight > 0 or settings.distillation.features or not all(aim.labelled for aim in found) else ()
    distillation = settings.distillation if asked else replace(settings.distillation, shares=(), features=())
    attacker = None if settings.attack is None else Attacker.for_rows(settings.attack, rows)
    teaching = Teaching(asked, found, distillation, rows, max(settings.schedule.batch, SEEN_ROWS))
    return Goal(rows, found, teaching, attacker)


def _seen(student: Lifted, rows: Rows, known: tuple[Teacher, ...]) -> dict[str, Tensor]:
    """Answers to the first rows: the first teacher's where it has that output, else the student's own; only outputs with an answer a row.

    Raises:
        ConfigError: a teacher answers in another shape.
        DataError: an output has labels and no answer a row.
    """
    chosen = next(iter(rows.batches(SEEN_ROWS)))
    feeds = rows.feeds(chosen)
    student.eval()
    with torch.no_grad():
        own = student(feeds)
    theirs = [each.answer(feeds) for each in known]
    for name, answer in ((name, answer) for answers in theirs for name, answer in answers.items()):
        if answer.shape != own[name].shape:
            raise ConfigError(
                f"teacher: its output for {name!r} must have the model's shape {list(own[name].shape)}, got {list(answer.shape)}; take another"
            )
    single = [name for name, output in own.items() if not output.ndim or len(output) != len(chosen)]
    labelled = next((name for name in single if name in rows.labels), None)
    if labelled is not None:
        raise DataError(
            f"labels of output {labelled!r}: it must give one answer a row, got shape {list(own[labelled].shape)} for {len(chosen)} rows; leave them out"
        )
    return {name: output for name, output in {**own, **(theirs[0] if theirs else {})}.items() if name not in single}


def _judge(seen: Mapping[str, Tensor], goal: Goal, chosen: Rows | None, settings: Settings) -> Judge | None:
    """The judge of the outputs that are trained: by their labels on the selection rows, else by the teachers."""
    if chosen is None:
        return None
    trained = {name: output for name, output in seen.items() if name in {aim.output for aim in goal.aims}}
    judged_by = goal.teaching.taught | set(chosen.labels)
    if not judged_by & set(trained):
        raise ConfigError("selection: needs labels for an output that is trained, or a teacher, got neither; leave the selection rows out")
    held = {name: output for name, output in trained.items() if name in judged_by}
    tasks = replace(settings.tasks, **{
        key: {name: value for name, value in getattr(settings.tasks, key).items() if name in held} for key in ("losses", "weights")
    })  # fmt: skip
    judged = aims(held, chosen, tasks, settings.distillation, taught=True)
    teachers = goal.teaching.teachers if goal.attacker or not set(held) <= set(chosen.labels) else ()
    plain = replace(settings.distillation, features=(), shares=settings.distillation.shares if teachers else ())
    teaching = Teaching(teachers, judged, plain, chosen, max(settings.schedule.batch, SEEN_ROWS))
    return Judge(Goal(chosen, judged, teaching, goal.attacker), settings.schedule.batch, settings.seed)
