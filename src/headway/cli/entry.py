"""From arguments to an exit code: 0 done, 1 a defect, 2 usage or input, 3 objective not met."""

from __future__ import annotations

import errno
import importlib
import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

import headway
from headway.cli import commands
from headway.cli.output import print_error
from headway.discovery import first_line, names
from headway.records import ConfigError, HeadwayError, InputError, MissingPackage

EXTRA_OF = {
    "torch": "torch", "onnxscript": "torch", "tensorflow": "keras", "keras": "keras", "tf2onnx": "keras", "openvino": "openvino", "wandb": "track",
    "tensorboard": "track", "fastapi": "demo", "uvicorn": "demo", "efficientnet_lite_pytorch": "demo", "transformers": "demo-text", "soundfile": "demo-speech",
}  # fmt: skip


RESUMABLE = ("tune", "demo")
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG}
"""What a full or closed disk says: the user must act, and a traceback would not help."""


class Commands(TyperGroup):
    """The commands found by file name; help lists them without importing one."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; Ctrl-C ends it with the shell's code for it and says how to go on."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            resume = "; what was measured is kept: continue with --resume" if ctx.invoked_subcommand in RESUMABLE else ""
            print(f"stopped{resume}", file=sys.stderr)
            sys.exit(128 + signal.SIGINT)

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of all commands, in the order of their files."""
        return list(names(commands))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of one file."""
        if cmd_name not in names(commands):
            return None
        module = _import(cmd_name)
        app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
        app.command(name=cmd_name)(module.command)
        made = typer.main.get_command(app)
        made.name = cmd_name
        return made

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write one line for each command."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, first_line(commands, name)) for name in names(commands)])


def _import(name: str) -> Any:
    try:
        return importlib.import_module(f"{commands.__name__}.{name}")
    except ImportError as error:
        missing = (error.name or "").split(".")[0]
        if not missing or missing == "headway":
            raise
        raise MissingPackage(
            f"headway {name} needs the package {missing}, which is not installed; run: pip install 'headway[{EXTRA_OF.get(missing, 'tune')}]'"
        ) from error


def _version(value: bool) -> None:
    if value:
        print(f"headway {headway.__version__}")
        raise typer.Exit


application = typer.Typer(
    cls=Commands,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@application.callback()
def _root(version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version and end.")) -> None:
    """From a trained model, samples and an objective to the cheapest deployment that meets it: measured, proved, served."""


def _log_level() -> str:
    level = os.environ.get("HEADWAY_LOG", "ERROR").upper()
    if level not in logging.getLevelNamesMapping():
        raise ConfigError(f"HEADWAY_LOG must be one of {', '.join(logging.getLevelNamesMapping())}, got {level!r}; set one, or unset it")
    return level


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and end the process with its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        logging.basicConfig(level=_log_level(), stream=sys.stderr)
        application(words, prog_name="headway", standalone_mode=True)
    except HeadwayError as error:
        print_error(error, as_json="--json" in words)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        where = f"{error.filename}: " if error.filename else ""
        refused = InputError(
            f"{where}{error.strerror}. Free space, or choose a folder that can be written; what was measured so far is kept."
        )
        print_error(refused, as_json="--json" in words)
        sys.exit(refused.exit_code)
