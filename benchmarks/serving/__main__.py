"""Headway's server beside its peers: same model, same core, same load, interleaved.

    python benchmarks/serving setup                                        # the peers' environments; minutes
    python benchmarks/serving capacity --model mlp [--rounds 3] [--only headway --only triton]
    python benchmarks/serving lone | idle | saturate | frontend | overload | stop | swap [--only ...]
    python benchmarks/serving table                                        # markdown, from the lines alone

Wall time on a quiet machine: a round of ``capacity`` over everything about 15 minutes a model (70 s a server, 150 s for Headway's two); ``lone``
2 minutes a round, ``idle`` 7 minutes, ``saturate`` 4 and ``stop`` 3 minutes a round, ``frontend`` 90 s a round, ``swap`` 25 s a round, ``overload``
2 minutes a server and round. Called again, ``capacity`` adds further rounds that begin where the earlier ones ended.

Appends to ``results.jsonl``. ``--quick`` makes runs of seconds that show that everything works; their lines go to ``quick.jsonl`` and no table
should be made of them. ``--limit-s`` ends a command in time: nothing new is started after it. Needs a quiet machine with two cores: servers sit
on one, the generator on the other. Peers' environments lie under ``~/.cache/headway/peers-serving``, models under ``~/.cache/headway/serving``.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import time

import capacity
import frontend
import idle
import lone
import overload
import saturate
import stopping
import summary_tables
import swapping
from job import Job
from lines import QUICK, RESULTS, Lines
from models import NAMES
from running import LOAD_CORE, NICE
from servers import set_up

COMMANDS = {
    "capacity": capacity.measure,
    "lone": lone.measure,
    "idle": idle.measure,
    "saturate": saturate.measure,
    "frontend": frontend.measure,
    "overload": overload.measure,
    "stop": stopping.measure,
    "swap": swapping.measure,
}


def main() -> None:
    """Parse, and carry out one command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("setup", *COMMANDS, "table"))
    parser.add_argument("--model", choices=NAMES, default=NAMES[0])
    parser.add_argument("--only", action="append", choices=capacity.names(), help="a server; may be given several times")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="short runs, to see that everything works")
    parser.add_argument("--unpinned", action="store_true", help="overload: the server may use every core, the generator's too")
    parser.add_argument("--limit-s", type=float, default=1e9, help="start nothing new after this time")
    chosen = parser.parse_args()
    lines = Lines(QUICK if chosen.quick else RESULTS)
    if chosen.command == "setup":
        set_up(say)
    elif chosen.command == "table":
        print(summary_tables.all_tables(lines.read()))
    else:
        where = lines.environment()
        take_core()
        rounds = 1 if chosen.quick else chosen.rounds
        job = Job(chosen.model, tuple(chosen.only or ()), rounds, chosen.quick, say, chosen.limit_s, where, not chosen.unpinned)
        COMMANDS[chosen.command](lines, job)


def say(text: str) -> None:
    """One line of progress."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def take_core() -> None:
    """Put this process, which sends the load, on its own core and before other work; end servers when it is told to end."""
    os.sched_setaffinity(0, {LOAD_CORE})
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))


if __name__ == "__main__":
    main()
