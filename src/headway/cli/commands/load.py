"""Put open-loop load on a server, or on a bundle in-process; find its capacity, run MLPerf scenarios, audit it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from headway.api.config import parse_duration
from headway.api.load import load
from headway.api.load_audit import audit
from headway.api.load_find import find
from headway.api.load_scenario import scenario
from headway.api.load_session import LoadAsked
from headway.api.load_target import Sending
from headway.api.progress import Progress
from headway.cli.load_output import LiveLine, load_progress, print_audit, print_capacity, print_load, print_scenario, print_trial
from headway.cli.output import print_json
from headway.load import Trust
from headway.records import ConfigError, LoadPoint, Objective

NOT_MET = 3
Shown = AbstractContextManager[Progress]


def command(
    target: Annotated[
        str,
        typer.Argument(
            metavar="URL|BUNDLE",
            help="http(s):// or grpc(s)://HOST:PORT of a server of the Open Inference Protocol, or a bundle or run folder.",
        ),
    ],
    rate: Annotated[float | None, typer.Option(help="Offered rate, requests a second; with --find the first to try.")] = None,
    for_: Annotated[
        str, typer.Option("--for", metavar="TIME", help="How long, such as 30s (the default); with --find the shortest trial.")
    ] = "",
    arrivals: Annotated[
        str, typer.Option(help="Arrival process with its settings, such as bursty:c2=8, step:factor=3,at=0.5 or trace:FILE.")
    ] = "poisson",
    slo: Annotated[str, typer.Option(metavar="TEXT", help="Objective to judge by; by default the bundle's own, or p99<=1s.")] = "",
    data: Annotated[str, typer.Option(help="Samples to send; by default synthetic ones that fit the model's inputs.")] = "",
    model: Annotated[str, typer.Option(help="Model name at the server; by default its only one.")] = "",
    seed: Annotated[int, typer.Option(help="Seed of the arrivals and of the order of samples.")] = 0,
    senders: Annotated[
        str, typer.Option(metavar="N|auto", help="Processes that send; auto adds a second when one was the bottleneck of a run.")
    ] = "auto",
    spin: Annotated[
        bool, typer.Option("--spin", help="The sender never sleeps: steadier, but takes a core of its own; only for http(s)://.")
    ] = False,
    ca: Annotated[str, typer.Option("--ca", metavar="FILE", help="Certificates (PEM) to believe over TLS; by default the system's.")] = "",
    insecure: Annotated[bool, typer.Option("--insecure", help="Believe any certificate over TLS.")] = False,
    raw: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the record of every request here, as JSON lines.")] = None,
    hdr: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the distribution of latency here, in HdrHistogram's text form (.hgrm).")
    ] = None,
    find_: Annotated[bool, typer.Option("--find", help="Search for the highest rate that keeps --slo.")] = False,
    scenario_: Annotated[
        str, typer.Option("--scenario", metavar="NAME", help="An MLPerf scenario: single-stream, multi-stream, server or offline.")
    ] = "",
    quick: Annotated[bool, typer.Option("--quick", help="A shorter scenario, which does not conform to MLPerf's rules.")] = False,
    audit_: Annotated[
        bool, typer.Option("--audit", help="MLPerf's TEST01, TEST04 and TEST05: right answers, no cache, no favourite seed.")
    ] = False,
    reference: Annotated[str, typer.Option(metavar="BUNDLE", help="With --audit: a bundle that says which answers are right.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Put open-loop load on a server, or on a bundle in-process: latency counts from the moment a request was due."""
    _check_modes(find_, scenario_, audit_, quick, reference)
    if (raw or hdr) and (find_ or scenario_ or audit_):
        raise ConfigError("--raw and --hdr are of a single run at one rate; leave --find, --scenario and --audit out")
    progress = load_progress(as_json)
    sending = Sending(spin=spin, trust=Trust(ca, insecure), live=progress.tell if isinstance(progress, LiveLine) else None)
    asked = LoadAsked(
        target=target, arrivals=arrivals, slo=slo, data=data, model=model, seed=seed, senders=_count(senders), sending=sending
    )  # fmt: skip
    seconds = parse_duration(for_, "--for") if for_ else None
    if find_:
        code = _find(asked, progress, rate, seconds, as_json)
    elif scenario_:
        code = _scenario(asked, progress, scenario_, rate, seconds, quick, as_json)
    elif audit_:
        code = _audit(asked, progress, rate, seconds, reference, as_json)
    else:
        code = _load(asked, progress, rate, seconds, (raw, hdr), as_json)
    raise typer.Exit(code)


def _count(senders: str) -> int | None:
    if senders == "auto":
        return None
    if not senders.isdigit():
        raise ConfigError(f"--senders must be auto or a whole number, got {senders!r}")
    return int(senders)


def _check_modes(find_: bool, scenario_: str, audit_: bool, quick: bool, reference: str) -> None:
    if find_ + bool(scenario_) + audit_ > 1:
        raise ConfigError("at most one of --find, --scenario and --audit must be given, got several; run one after the other")
    if quick and not scenario_:
        raise ConfigError("--quick belongs to --scenario, and none was given; use --for to set how long a load lasts")
    if reference and not audit_:
        raise ConfigError("--reference belongs to --audit, and that was not given; add --audit")


def _load(
    asked: LoadAsked, shown: Shown, rate: float | None, seconds: float | None, files: tuple[Path | None, Path | None], as_json: bool
) -> int:
    with shown as progress:
        found = load(asked, rate_per_s=rate, duration_s=seconds, raw=files[0], hdr=files[1], progress=progress)
    point = found.point
    if as_json:
        print_json(_quotable(point))
    else:
        print_load(Console(highlight=False), point, found.objective, found.notes)
    return NOT_MET if asked.slo and point.verdict != "held" else 0


def _quotable(point: LoadPoint) -> LoadPoint:
    """Without percentiles when they would be the generator's own."""
    return msgspec.structs.replace(point, percentiles=()) if point.verdict == "generator-bound" else point


def _find(asked: LoadAsked, shown: Shown, rate: float | None, seconds: float | None, as_json: bool) -> int:
    console = Console(highlight=False)

    def tell(search: int, point: LoadPoint, objective: Objective) -> None:
        if not as_json:
            print_trial(console, search, point, objective)

    with shown as progress:
        found = find(asked, start_per_s=rate, trial_s=seconds, tell=tell, progress=progress)
    if as_json:
        print_json(found)
    else:
        print_capacity(console, found)
    wanted = found.objective.rate_per_s
    return NOT_MET if found.rate_per_s == 0 or (wanted is not None and found.rate_per_s < wanted) else 0


def _scenario(asked: LoadAsked, shown: Shown, name: str, rate: float | None, seconds: float | None, quick: bool, as_json: bool) -> int:
    with shown as progress:
        found = scenario(name, asked, rate_per_s=rate, seconds=seconds, quick=quick, progress=progress)
    if as_json:
        print_json(found)
    else:
        print_scenario(Console(highlight=False), found)
    return 0 if found.valid else NOT_MET


def _audit(asked: LoadAsked, shown: Shown, rate: float | None, seconds: float | None, reference: str, as_json: bool) -> int:
    with shown as progress:
        found = audit(asked, rate_per_s=rate, seconds=seconds, reference=reference, progress=progress)
    if as_json:
        print_json({"audit": found})
    else:
        print_audit(Console(highlight=False), found)
    return 0 if all(one.verdict == "passed" for one in found) else NOT_MET
