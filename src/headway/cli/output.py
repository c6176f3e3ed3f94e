"""What every command prints the same way: errors, JSON, and progress on standard error."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from headway.records import ConfigError, HeadwayError, to_plain

QUIET_EVERY_S = 10.0


def print_json(value: object) -> None:
    """One JSON object on standard output."""
    print_line(msgspec.json.format(msgspec.json.encode(to_plain(value)), indent=2).decode())


def print_line(text: str) -> None:
    """One line on standard output at once: whoever reads a pipe must not wait for the end of the command."""
    print(text, flush=True)


def address(text: str) -> tuple[str, int]:
    """Host and port from ``HOST:PORT``.

    Raises:
        ConfigError: the text is not of that form.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"an address must read HOST:PORT, got {text!r}; write 127.0.0.1:8000")
    return host.strip("[]"), int(port)


def print_error(error: HeadwayError, *, as_json: bool) -> None:
    """One message on standard error, and one JSON object on standard output when ``--json`` was given."""
    print(f"error: {error}", file=sys.stderr)
    if as_json:
        print_json({"error": {"kind": type(error).__name__, "message": str(error), "exit_code": error.exit_code}})


class Drawn:
    """Progress drawn with Rich on a terminal, or a line now and then where there is none.

    It also remembers Ctrl-C: one that falls into a destructor or another library's callback is lost there, and comes up again with the next stage or step.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[now]}"), console=console, transient=False,
        )  # fmt: skip
        self._task: TaskID | None = None
        self._lock = threading.Lock()
        self._said_s = 0.0
        self._interrupted = False

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """What SIGINT does."""
        self._interrupted = True
        raise KeyboardInterrupt

    def _check(self) -> None:
        if self._interrupted and threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt

    def start(self) -> None:
        """Begin to draw."""
        if self._console.is_terminal:
            self._bar.start()

    def stop(self) -> None:
        """Finish the last stage and stop drawing."""
        self._finish()
        if self._console.is_terminal:
            self._bar.stop()

    def _finish(self) -> None:
        if self._task is not None:
            task = self._bar.tasks[-1]
            self._bar.update(self._task, completed=task.total, now="")

    def stage(self, title: str, steps: int) -> None:
        """A stage begins."""
        self._check()
        self._finish()
        self._task = self._bar.add_task(title, total=max(1, steps), completed=-1, now="")
        if not self._console.is_terminal:
            print(f"{title} ...", file=sys.stderr, flush=True)

    def step(self, text: str) -> None:
        """One step begins."""
        self._check()
        with self._lock:
            if self._task is not None:
                self._bar.update(self._task, advance=1, now=text[:70])
            if not self._console.is_terminal and time.monotonic() - self._said_s > QUIET_EVERY_S:
                self._said_s = time.monotonic()
                print(f"  {text}", file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """A line that stays."""
        self._console.print(f"  {text}", style="yellow", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def drawn_progress() -> Iterator[Drawn]:
    """Progress on standard error for the length of the block."""
    progress = Drawn(Console(stderr=True))
    progress.start()
    before = signal.getsignal(signal.SIGINT)
    mine = before is signal.default_int_handler and threading.current_thread() is threading.main_thread()
    if mine:
        signal.signal(signal.SIGINT, progress.interrupt)
    try:
        yield progress
    finally:
        if mine:
            signal.signal(signal.SIGINT, before)
        progress.stop()
