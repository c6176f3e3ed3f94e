"""``python -m headway.serve BUNDLE``: serve a bundle and print one line of JSON when it listens."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import orjson

from headway.records import HeadwayError, InputError
from headway.serve.bundle import open_bundle
from headway.serve.options import Options, Ready, TlsFiles
from headway.serve.served import Settings
from headway.serve.server import serve


def main(arguments: list[str] | None = None) -> int:
    """Run the server; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m headway.serve", description=__doc__)
    parser.add_argument("bundle", type=Path, nargs="*", help="bundles, or run folders that hold one")
    parser.add_argument("--repository", type=Path, help="a folder of models, instead of bundles")
    parser.add_argument("--http", default="127.0.0.1:8000", metavar="HOST:PORT", help="where to listen; port 0 lets the system choose")
    parser.add_argument("--grpc", metavar="HOST:PORT", help="where gRPC listens")
    parser.add_argument("--name", help="the model's name in URLs, instead of the bundle's")
    parser.add_argument("--variant", help="serve this variant of the bundle and no other")
    parser.add_argument("--levels", type=int, default=1, help="variants kept warm, to step to under overload")
    parser.add_argument("--deadline", type=float, help="seconds after which an answer is of no use")
    parser.add_argument("--queue-limit", type=int, help="requests that may wait before more are refused")
    parser.add_argument("--control", action="store_true", help="let clients load and unload models and direct traffic")
    parser.add_argument("--trace", type=Path, help="write arrival times and rows to this file at the end")
    parser.add_argument("--certfile", type=Path, help="TLS certificate chain (PEM)")
    parser.add_argument("--keyfile", type=Path, help="TLS private key (PEM)")
    given = parser.parse_args(arguments)
    try:
        host, port = _address(given.http)
        if (given.certfile is None) != (given.keyfile is None):
            raise InputError("TLS: --certfile and --keyfile must be given together, got only one of them.")
        options = Options(
            host=host, port=port, grpc=_address(given.grpc) if given.grpc else None, token=os.environ.get("HEADWAY_TOKEN"),
            tls=TlsFiles(given.certfile, given.keyfile) if given.certfile else None, trace=given.trace, control=given.control,
            settings=Settings(deadline_s=given.deadline, queue_limit=given.queue_limit, levels=given.levels, variant=given.variant),
        )  # fmt: skip
        serve(*map(open_bundle, given.bundle), repository=given.repository, name=given.name, options=options, on_ready=_print)
    except HeadwayError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise InputError(f"--http must be HOST:PORT, got {text!r}; write 127.0.0.1:8000")
    return host.strip("[]"), int(port)


def _print(ready: Ready) -> None:
    line = {
        "url": ready.url, "port": ready.port, "model": ready.model, "variant": ready.variant.variant.name,
        "plan": str(ready.plan), "notes": ready.notes,
        "grpc_port": ready.grpc_port,
    }  # fmt: skip
    print(orjson.dumps(line).decode(), flush=True)


if __name__ == "__main__":
    sys.exit(main())
