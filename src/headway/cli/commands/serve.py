"""Serve a run's bundle over HTTP (Open Inference Protocol v2)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console

from headway.cli.output import address, print_line
from headway.records import ConfigError
from headway.serve import Ready, TlsFiles, open_bundle, serve

TOKEN_VARIABLE = "HEADWAY_TOKEN"


def command(
    bundle: Annotated[Path, typer.Argument(metavar="RUN|BUNDLE", help="A run folder or a bundle folder.")],
    http: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where to listen; port 0 lets the system choose.")] = "127.0.0.1:8000",
    variant: Annotated[str, typer.Option(help="Serve this variant of the bundle and no other.")] = "",
    queue_limit: Annotated[int, typer.Option(help="Requests that may wait before more are refused; 0 lets the plan decide.")] = 0,
    trace: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write arrival times and rows (never payloads) here at the end.")
    ] = None,
    certfile: Annotated[Path | None, typer.Option(help="TLS certificate chain (PEM); needs --keyfile.")] = None,
    keyfile: Annotated[Path | None, typer.Option(help="TLS private key (PEM).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON when ready.")] = False,
) -> None:
    """Serve a run's bundle over HTTP until SIGTERM or Ctrl-C; every accepted request is answered first.

    A bearer token is required of clients when the environment variable HEADWAY_TOKEN is set.
    """
    if (certfile is None) != (keyfile is None):
        raise ConfigError("TLS: --certfile and --keyfile must be given together, got only one of them")
    host, port = address(http)

    def ready(what: Ready) -> None:
        if as_json:
            line = {
                "url": what.url,
                "port": what.port,
                "model": what.model,
                "variant": what.variant.variant.name,
                "plan": str(what.variant.plan),
            }
            print_line(orjson.dumps({**line, "notes": list(what.notes)}).decode())
            return
        console = Console(stderr=True, highlight=False)
        console.print(f"[bold]{what.model}[/bold] ready at {what.url}/v2/models/{what.model}/infer  (status page: {what.url}/)")
        console.print(f"  {what.variant.variant.name} on {what.variant.plan}", markup=False)
        for note in what.notes:
            console.print(f"  note: {note}", markup=False, style="yellow")
        console.print(f"  load it:  headway load {what.url} --rate 50 --for 10s", markup=False)

    serve(
        open_bundle(bundle), host=host, port=port, token=os.environ.get(TOKEN_VARIABLE), tls=TlsFiles(certfile, keyfile) if certfile and keyfile else None,
        trace=trace, queue_limit=queue_limit or None, variant=variant or None, on_ready=ready,
    )  # fmt: skip
