"""The runtimes there are, by file name, and the calls that go to one of them."""

from __future__ import annotations

import difflib
import functools
from pathlib import Path
from types import ModuleType

from headway.discovery import Found, discover, find, names
from headway.records import Census, ConfigError, MissingPackage, Plan, Unsupported
from headway.runtime import censuses as census_files
from headway.runtime import runtimes as runtime_files
from headway.runtime.session import Session


@functools.cache
def runtimes() -> Found:
    """Every runtime that can be imported here, and the reason for each that cannot."""
    return discover(runtime_files)


@functools.cache
def _censuses() -> Found:
    return discover(census_files)


def open_session(plan: Plan, path: Path) -> Session:
    """A session for one instance of a plan.

    Raises:
        ConfigError: no runtime of that name, or it does not know the device.
        MissingPackage: the runtime's package is not installed.
        ModelError: the file is no graph that it can read.
        Unsupported: it refuses the graph; the message is one sentence.
    """
    module = _module(plan.runtime, plan.device)
    session: Session = module.open_session(Path(path), threads=plan.threads, device=plan.device)
    return session


def refuse(runtime: str, path: Path, device: str = "cpu") -> str | None:
    """Why a runtime cannot honour a graph, in one sentence; none when it can.

    Raises:
        ConfigError, MissingPackage: as ``open_session``.
    """
    reason: str | None = _module(runtime, device).refuse(Path(path), device=device)
    return reason


def census(runtime: str, path: Path, variant: str) -> Census:
    """The graph as a runtime will execute it.

    Raises:
        Unsupported: the runtime does not tell, or the package to read it is missing.
    """
    found = _censuses()
    if runtime not in found.present:
        raise Unsupported(f"no census for {runtime}: {found.missing.get(runtime, 'it does not tell what it executes')}")
    counted: Census = found.present[runtime].census(Path(path), variant)
    return counted


def versions() -> dict[str, str]:
    """Versions of the libraries behind the runtimes that are present."""
    return {name: version for module in runtimes().present.values() for name, version in module.versions().items()}


@functools.cache
def _module(name: str, device: str) -> ModuleType:
    """The file of one runtime, imported alone: a server does not load the runtimes it does not use."""
    found = find(runtime_files, name)
    if name in found.present:
        module = found.present[name]
        if device not in module.DEVICES:
            raise ConfigError(f"{name}: the device must be one of {', '.join(module.DEVICES)}, got {device!r}")
        return module
    if name in found.missing:
        raise MissingPackage(f"the runtime {name!r} {found.missing[name]}; run: pip install 'headway[{name}]'")
    known = names(runtime_files)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
    raise ConfigError(f"the name of a runtime must be known, got {name!r}; {hint}")
