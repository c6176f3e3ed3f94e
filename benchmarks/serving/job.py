"""What every command is given."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Job:
    """What is asked of a command.

    Attributes:
        only: servers; empty: all that the command is for.
        quick: short runs that show that everything works.
        say: takes a line of progress.
        limit_s: start nothing new after this time [s].
        environment: name of the line that describes this machine.
        pinned: whether servers stay on one core.
    """

    model: str
    only: tuple[str, ...]
    rounds: int
    quick: bool
    say: Callable[[str], None]
    limit_s: float
    environment: str
    pinned: bool = True
    began_s: float = field(default_factory=time.monotonic)

    def servers(self, known: Iterable[str]) -> list[str]:
        """Those of the known ones that are wanted."""
        return [name for name in known if not self.only or name in self.only]

    @property
    def over(self) -> bool:
        """Whether time is up; said once it is."""
        if time.monotonic() - self.began_s <= self.limit_s:
            return False
        self.say("time is over: call again to go on")
        return True
