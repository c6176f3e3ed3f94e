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

_EXTRAS = {"torch_compiled": "torch"}
"""The extras that bring a runtime, where they are not named as it is."""


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


def runtime_names() -> tuple[str, ...]:
    """Names of all runtimes, usable here or not; none is imported."""
    return names(runtime_files)


def missing(name: str) -> str | None:
    """Why a runtime cannot be imported here; none when it can, or when there is no runtime of that name. No other runtime is imported."""
    return find(runtime_files, name).missing.get(name)


def devices(name: str) -> tuple[str, ...]:
    """The devices of a runtime that are usable here now, without opening one: all it knows, unless its file tells by ``usable()``.

    Raises:
        ConfigError, MissingPackage: as ``open_session``.
    """
    module = _module(name, "cpu")
    return tuple(module.usable()) if hasattr(module, "usable") else tuple(module.DEVICES)


def asked_only() -> tuple[str, ...]:
    """Runtimes that are considered only when they are named (``ASKED`` in their file)."""
    return tuple(name for name, module in runtimes().present.items() if getattr(module, "ASKED", False))


def gpus() -> tuple[str, ...]:
    """Name and memory of each NVIDIA GPU, as torch tells; none without torch."""
    return tuple(gpu for module in runtimes().present.values() if hasattr(module, "gpus") for gpu in module.gpus())


def census(runtime: str, path: Path, variant: str, device: str = "cpu") -> Census:
    """The graph as a runtime will execute it.

    Raises:
        Unsupported: the runtime does not tell, the package to read it is missing, or the device is another than the CPU.
    """
    if device != "cpu":
        raise Unsupported(f"no census for {runtime} on {device}: kernels are only counted on the cpu; leave the census out there")
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
        raise MissingPackage(f"the runtime {name!r} {found.missing[name]}; run: pip install 'headway[{_EXTRAS.get(name, name)}]'")
    known = runtime_names()
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
    raise ConfigError(f"the name of a runtime must be known, got {name!r}; {hint}")
