"""The look at a run while it goes: its figures are those of the last two seconds, and it is told and ended with the run."""

from __future__ import annotations

import io
import threading

import numpy as np
import pytest
from rich.console import Console

from headway.api.load_session import LoadAsked, loading
from headway.api.load_target import Sending
from headway.cli.load_output import LiveLine
from headway.load import Completion, Seen, run_open_loop
from headway.load import live as live_module
from headway.load.live import MOST_LOOKED_AT, look
from headway.records import ConfigError
from headway.report.load_words import live_words


def test_a_look_tells_of_the_last_two_seconds() -> None:
    due_s = np.arange(0.0, 10.0, 0.01)
    completion = Completion(len(due_s))
    completion.start_s -= 5.0  # as if the run had begun five seconds ago
    for number in range(500):
        completion.refused(number) if number < 7 else completion.ok(number)
    sent_s = np.where(np.arange(len(due_s)) == 450, due_s + 0.25, due_s)
    seen = look(due_s, sent_s, completion, 5.0, 99.0)
    assert seen.left_s == pytest.approx(4.99) and seen.refused == 7 and seen.answered_per_s == 99.0
    assert seen.lateness_s == pytest.approx(0.25)
    assert 0.9 < seen.p50_s < 1.5 and seen.p50_s < seen.p99_s < 2.5


def test_a_look_is_bounded_and_empty_ones_are_told() -> None:
    due_s = np.zeros(3 * MOST_LOOKED_AT)
    late = np.zeros(len(due_s))
    late[0] = 9.0  # beyond what one look takes in
    seen = look(due_s, late, Completion(len(due_s)), 1.0, 0.0)
    assert seen.lateness_s == 0.0 and np.isnan(seen.p50_s) and "no answers" in live_words(seen)
    assert look(np.zeros(0), np.zeros(0), Completion(0), 0.0, 0.0).left_s == 0.0


def test_a_run_tells_and_its_watcher_ends_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "EVERY_S", 0.01)
    told: list[Seen] = []
    before = threading.active_count()
    raw = run_open_loop(lambda number, completion: completion.ok(number), np.linspace(0, 0.3, 50), live=told.append)
    assert len(raw.due_s) == 50 and told and threading.active_count() == before
    assert told[-1].answered_per_s > 0


def test_the_line_says_it_all() -> None:
    out = io.StringIO()
    with LiveLine(Console(file=out, force_terminal=True, width=200)) as line:
        line.stage("load", 2)
        line.step("measure")
        line.tell(Seen(12.4, 200.0, 0.002, 0.004, 3, 0.0001))
        line.note("a note")
    for word in ("load: measure", "12 s left", "200/s", "p50", "p99", "3 refused", "sender late", "a note"):
        assert word in out.getvalue()


def test_spinning_needs_a_server_and_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="--spin"), loading(LoadAsked(target="folder", sending=Sending(spin=True))):
        pass
    monkeypatch.setattr("headway.api.load_session.usable_cores", lambda: 1)
    with pytest.raises(ConfigError, match="core"), loading(LoadAsked(target="http://127.0.0.1:9", sending=Sending(spin=True))):
        pass
