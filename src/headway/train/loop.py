"""The training loop: steps, epochs, the best moment, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from headway.lift import Lifted
from headway.records import Unsupported
from headway.train import checkpoint, conflicts
from headway.train.balance import Uncertainty
from headway.train.history import Epoch, Progress, Report
from headway.train.judging import Judge, value
from headway.train.limits import Limits
from headway.train.objective import Goal
from headway.train.schedule import rate_factor, step_count
from headway.train.settings import Settings

BALANCE_RATE = 0.02
"""Learning rate of log variances, whatever that of the weights: they start at 0 and end at about the logarithm of a loss."""


@dataclass(eq=False)
class Loop:
    """One training of one lifted model, from its start or from a checkpoint.

    Attributes:
        scales: names of weights that are scales; each moves in proportion to its own size.
        folder: where checkpoints go; none: nowhere.
        key: fingerprint that a checkpoint must carry.
        stopped: why it ended.
    """

    student: Lifted
    goal: Goal
    judge: Judge | None
    settings: Settings
    limits: Limits
    scales: frozenset[str]
    generator: torch.Generator
    folder: Path | None = None
    key: str = ""
    report: Report | None = None
    history: list[Epoch] = field(default_factory=list)
    stopped: str = ""
    best: dict[str, Tensor] = field(default_factory=dict)
    step: int = 0

    def __post_init__(self) -> None:
        schedule = self.settings.schedule
        self.batch = self.goal.rows.fixed or schedule.batch
        whole = bool(self.goal.rows.fixed)
        self.each, self.steps = step_count(self.goal.rows.count, self.batch, schedule.epochs, schedule.steps, whole=whole)
        self.student.update_statistics = self.settings.update_statistics
        self.balance = Uncertainty(self.goal.numbers) if self.settings.tasks.balance == "uncertainty" else None
        self.trained = self._trained()
        self.optimiser = torch.optim.AdamW(self._groups(), schedule.learning_rate, weight_decay=0.0, fused=True)

    def run(self) -> None:
        """Train to the end; the student then holds the kept moment's weights, in evaluation mode."""
        self.started_s = time.monotonic()
        if not self._resume():
            self._close_epoch(0, None)
        while not self.stopped:
            self._epoch(len(self.history))
        self.student.load_state_dict(self.best)
        self.student.eval()

    def _trained(self) -> dict[str, nn.Parameter]:
        frozen = set(self.settings.frozen)
        chosen = {}
        for name, weight in self.student.weights.items():
            weight.requires_grad_(name not in frozen)
            if name not in frozen:
                chosen[name] = weight
        if not chosen:
            raise Unsupported("recover: the model must hold a float weight to train, got none (or all are frozen)")
        return chosen

    def _groups(self) -> list[dict[str, Any]]:
        rate, decay = self.settings.schedule.learning_rate, self.settings.schedule.weight_decay
        plain = {name: weight for name, weight in self.trained.items() if name not in self.scales}
        groups = [
            {"params": [weight for weight in plain.values() if weight.ndim >= 2], "base": rate, "weight_decay": decay},
            {"params": [weight for weight in plain.values() if weight.ndim < 2], "base": rate},
        ]
        for name in self.trained:
            if name in self.scales:
                weight = self.trained[name]
                groups.append({"params": [weight], "base": rate * float(weight.detach().abs().mean())})
        if self.balance is not None:
            groups.append({"params": list(self.balance.parameters()), "base": BALANCE_RATE})
        return [group for group in groups if group["params"]]

    def _epoch(self, number: int) -> None:
        order = np.random.default_rng((self.settings.seed, number)).permutation(self.goal.rows.count)
        total, done = 0.0, 0
        for rows in self.goal.rows.batches(self.batch, order):
            if self.step >= self.steps or self._late():
                break
            loss = self._step(rows)
            if not math.isfinite(loss):
                self.stopped = f"the loss of step {self.step} was not finite; try a smaller learning rate"
                break
            total, done = total + loss, done + 1
            if self.report is not None:
                self.report(Progress(self.step, self.steps, number, loss))
        late = self._late()
        if self.step >= self.steps and not self.stopped:
            self.stopped = "all steps done"
        self._close_epoch(number, total / done if done else None)
        if not self.stopped and late:
            self.stopped = f"the limit of {self.settings.schedule.limit_s:g} s"
        elif self.folder is not None:
            checkpoint.write(self.folder, self.key, self._state())

    def _late(self) -> bool:
        limit_s = self.settings.schedule.limit_s
        return bool(limit_s) and time.monotonic() - self.started_s > limit_s

    def _step(self, rows: np.ndarray) -> float:
        factor = rate_factor(self.step, self.steps, self.settings.schedule.warmup)
        for group in self.optimiser.param_groups:
            group["lr"] = group["base"] * factor
        self.step += 1
        self.student.train()
        self.optimiser.zero_grad(set_to_none=True)
        losses = self.goal.losses(self.student, rows, self.generator)
        if not any(each.requires_grad for each in losses):
            raise Unsupported(
                "recover: a weight that learns must reach a trained output, but no gradient comes back (integer arithmetic passes none)"
            )
        loss = sum(float(each.detach()) for each in losses)
        if not math.isfinite(loss):
            return loss
        self._descend(losses)
        return loss

    def _descend(self, losses: Sequence[Tensor]) -> None:
        weights = list(self.trained.values())
        if self.balance is not None:
            losses = self.balance(losses)
            weights += list(self.balance.parameters())
        conflicts.into_gradients(losses, weights, conflicts=self.settings.tasks.conflicts, generator=self.generator)
        self.limits.on_gradients()
        if self.settings.schedule.clip:
            nn.utils.clip_grad_norm_(list(self.trained.values()), self.settings.schedule.clip)
        self.optimiser.step()
        self.limits.on_weights()

    def _close_epoch(self, number: int, loss: float | None) -> None:
        self.student.eval()
        scores = () if self.judge is None else self.judge.scores(self.student)
        if self.judge is None:
            better, deciding = not self.stopped or self.stopped == "all steps done", None
        else:
            start = self.history[0].scores if self.history else scores
            pair = value(scores, start, self.judge.goal.aims)
            deciding = pair[0] if math.isfinite(pair[0]) else None
            better = not self.history or pair < value(self._kept().scores, start, self.judge.goal.aims)
        if better:
            self.best = {name: tensor.detach().clone() for name, tensor in self.student.state_dict().items()}
            self.history = [msgspec.structs.replace(epoch, kept=False) for epoch in self.history]
        self.history.append(Epoch(number=number, steps=self.step, loss=loss, scores=scores, value=deciding, kept=better))
        patience = self.settings.schedule.patience
        if not self.stopped and patience and number - self._kept().number >= patience:
            self.stopped = f"no better score on the selection rows in {patience} epochs"

    def _kept(self) -> Epoch:
        return next(epoch for epoch in self.history if epoch.kept)

    def _state(self) -> dict[str, Any]:
        return {
            "student": self.student.state_dict(),
            "best": self.best,
            "optimiser": self.optimiser.state_dict(),
            "balance": None if self.balance is None else self.balance.state_dict(),
            "random": torch.get_rng_state(),
            "generator": self.generator.get_state(),
            "history": msgspec.json.encode(self.history).decode(),
            "step": self.step,
            "stopped": self.stopped,
        }

    def _resume(self) -> bool:
        state = None if self.folder is None else checkpoint.read(self.folder, self.key)
        if state is None:
            return False
        self.student.load_state_dict(state["student"])
        self.best = state["best"]
        self.optimiser.load_state_dict(state["optimiser"])
        if self.balance is not None:
            self.balance.load_state_dict(state["balance"])
        torch.set_rng_state(state["random"])
        self.generator.set_state(state["generator"])
        self.history = msgspec.json.decode(state["history"], type=list[Epoch])
        self.step, self.stopped = state["step"], state["stopped"]
        return True
