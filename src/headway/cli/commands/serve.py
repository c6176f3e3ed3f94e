"""Serve bundles over HTTP and gRPC (Open Inference Protocol v2)."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Annotated, Literal

import orjson
import typer
from rich.console import Console

from headway.cli.output import address, print_line
from headway.cli.serve_on import Wish, serve_on
from headway.records import ConfigError, parse_time_s
from headway.serve import Options, Ready, Settings, TlsFiles, open_bundle, serve

TOKEN_VARIABLE = "HEADWAY_TOKEN"


def command(
    bundles: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RUN|BUNDLE]...", help="Run folders or bundle folders; several of one model's name are its versions 1, 2, ..."
        ),
    ] = None,
    repository: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Instead: a folder of models, NAME/VERSION/ or NAME/, each a run or a bundle.")
    ] = None,
    http: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where to listen; port 0 lets the system choose.")] = "127.0.0.1:8000",
    grpc: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where gRPC listens (needs the extra grpc); by default nowhere.")] = "",
    name: Annotated[str, typer.Option(help="Name of the first model in URLs, instead of its bundle's.")] = "",
    variant: Annotated[str, typer.Option(help="Serve this variant of the bundle and no other.")] = "",
    levels: Annotated[
        int,
        typer.Option(min=1, max=8, help="Variants kept warm: with 2 or 3, overload steps along the frontier to a faster one, and back."),
    ] = 1,
    deadline: Annotated[
        str,
        typer.Option(
            metavar="TIME|none",
            help="When an answer is of no more use, such as 50ms: what cannot make it is refused at once. By default the objective's bound.",
        ),
    ] = "",
    pad: Annotated[
        list[str] | None,
        typer.Option(
            metavar="INPUT=VALUE",
            help="Fill requests up with this, so that different lengths share a batch; tried on the golden set first.",
        ),
    ] = None,
    queue_limit: Annotated[int, typer.Option(help="Requests that may wait before more are refused; 0 lets the plan decide.")] = 0,
    control: Annotated[bool, typer.Option("--control", help="Let clients load and unload models and direct traffic.")] = False,
    trace: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write arrival times and rows (never payloads) here at the end.")
    ] = None,
    log: Annotated[
        str, typer.Option(metavar="text|json", help="Write events to standard error: loads, swaps, steps, refusals in summary.")
    ] = "",
    access_log: Annotated[int, typer.Option(metavar="N", help="With --log, every N-th request too; 0: none.")] = 0,
    spans: Annotated[
        str, typer.Option(metavar="URL", help="Send OpenTelemetry spans of sampled requests to this collector (needs the extra otel).")
    ] = "",
    certfile: Annotated[Path | None, typer.Option(help="TLS certificate chain (PEM); needs --keyfile.")] = None,
    keyfile: Annotated[Path | None, typer.Option(help="TLS private key (PEM).")] = None,
    on: Annotated[
        str,
        typer.Option(
            metavar="ray|ray:HOST:PORT|ray://HOST:PORT",
            help="Deploy on a Ray cluster, behind Ray Serve's proxies (needs the extra ray): the one that runs on this machine, or the one at that address.",
        ),
    ] = "",
    replicas: Annotated[int, typer.Option(min=1, help="With --on: copies of the server.")] = 1,
    route: Annotated[str, typer.Option(metavar="PATH", help="With --on: what stands before /v2 in the application's URLs.")] = "/",
    detach: Annotated[bool, typer.Option("--detach", help="With --on: leave the application running.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON when ready.")] = False,
) -> None:
    """Serve bundles over HTTP and gRPC until SIGTERM or Ctrl-C; every accepted request is answered first.

    A bearer token is required of clients when the environment variable HEADWAY_TOKEN is set.
    """
    if (certfile is None) != (keyfile is None):
        raise ConfigError("TLS: --certfile and --keyfile must be given together, got only one of them")
    host, port = address(http)
    token = os.environ.get(TOKEN_VARIABLE)
    settings = Settings(
        deadline_s=_deadline_s(deadline), queue_limit=queue_limit or None, levels=levels, variant=variant or None, pad=_padding(pad)
    )
    if on:
        alone = {
            "--repository": repository is not None, "--control": control, "--trace": trace is not None, "--log": bool(log),
            "--access-log": bool(access_log), "--spans": bool(spans), "--certfile": certfile is not None,
        }  # fmt: skip
        wish = Wish(
            where=on, bundles=bundles or (), name=name, settings=settings, token=token, replicas=replicas, route=route, http=(host, port),
            grpc=address(grpc) if grpc else None, refused=alone, stays=detach,
        )  # fmt: skip
        serve_on(wish, as_json=as_json)
        return
    if replicas != 1 or route != "/" or detach:
        raise ConfigError("--replicas, --route and --detach are for a cluster; give --on ray too, or leave them out")
    options = Options(
        host=host, port=port, grpc=address(grpc) if grpc else None, token=token,
        tls=TlsFiles(certfile, keyfile) if certfile and keyfile else None, trace=trace, control=control, log=_log(log), access_log=access_log, spans=spans or None,
        settings=settings,
    )  # fmt: skip
    serve(
        *map(open_bundle, bundles or ()), repository=repository, name=name or None, options=options,
        on_ready=_print_json if as_json else _print,
    )  # fmt: skip


def _log(form: str) -> Literal["text", "json"] | None:
    if form not in ("", "text", "json"):
        raise ConfigError(f"--log must be text or json, got {form!r}")
    return form or None  # type: ignore[return-value]


def _deadline_s(text: str) -> float | None:
    """A deadline [s]; infinite for ``none``, nothing when it is left to the objective."""
    if not text:
        return None
    return math.inf if text == "none" else parse_time_s(text, "--deadline")


def _padding(given: list[str] | None) -> dict[str, float] | None:
    """Values by input name."""
    values: dict[str, float] = {}
    for text in given or ():
        name, equals, value = text.rpartition("=")
        try:
            values[name] = float(value)
        except ValueError:
            equals = ""
        if not equals or not name:
            raise ConfigError(f"--pad must be INPUT=VALUE such as attention_mask=0, got {text!r}")
    return values or None


def _print_json(what: Ready) -> None:
    line = {
        "url": what.url, "port": what.port, "grpc_port": what.grpc_port, "model": what.model, "models": list(what.models),
        "variant": what.variant.variant.name, "plan": str(what.plan), "notes": list(what.notes),
    }  # fmt: skip
    print_line(orjson.dumps(line).decode())


def _print(what: Ready) -> None:
    console = Console(stderr=True, highlight=False)
    also = f" and gRPC on port {what.grpc_port}" if what.grpc_port else ""
    for name in what.models:
        console.print(f"[bold]{name}[/bold] ready at {what.url}/v2/models/{name}/infer{also}")
    console.print(f"  {what.variant.variant.name} on {what.plan}", markup=False)
    for note in what.notes:
        console.print(f"  note: {note}", markup=False, style="yellow")
    console.print(f"  look at it:  {what.url}/   how to ask it:  {what.url}/docs", markup=False)
    console.print(f"  load it:  headway load {what.url} --rate 50 --for 10s", markup=False)
