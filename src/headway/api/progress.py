"""What a long run tells while it works: stages, and steps within them."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives what a run is doing; the command line draws it, a program may ignore it."""

    def stage(self, title: str, steps: int) -> None:
        """A stage of about ``steps`` steps begins."""

    def step(self, text: str) -> None:
        """One step of the stage begins."""

    def note(self, text: str) -> None:
        """Something worth a line of its own."""


class Silent:
    """Tells nothing."""

    def stage(self, title: str, steps: int) -> None:
        """Nothing."""

    def step(self, text: str) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""
