"""Exact versions of the installed packages that Headway's server needs, and of all that those need. It reads metadata; it installs nothing."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from headway.records import MissingPackage

PROJECT = "headway"
LINUX = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}
"""What the image runs, whatever this machine runs."""


def extras_for(runtimes: Iterable[str]) -> frozenset[str]:
    """The extras of Headway that bring these runtimes; one that the base install brings has none."""
    offered = _installed(PROJECT, PROJECT).metadata.get_all("Provides-Extra") or []
    return frozenset(runtimes) & frozenset(offered)


def pinned(extras: Iterable[str] = ()) -> dict[str, str]:
    """Version by canonical name, sorted, without Headway's own: what the base install and these extras need, transitively.

    Raises:
        MissingPackage: one of them is not installed here, so that nothing says which version works.
    """
    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    wanted = [Requirement(f"{PROJECT}[{','.join(sorted(extras))}]")]
    while wanted:
        requirement = wanted.pop()
        name = canonicalize_name(requirement.name)
        fresh = {(name, extra) for extra in ("", *requirement.extras)} - seen
        if not fresh:
            continue
        seen |= fresh
        installed = _installed(name, requirement.name)
        found[name] = Version(installed.version).public
        for text in installed.requires or ():
            needs = Requirement(text)
            if any(needs.marker is None or needs.marker.evaluate({**LINUX, "extra": extra}) for _, extra in fresh):
                wanted.append(needs)
    return {name: version for name, version in sorted(found.items()) if name != PROJECT}


def _installed(name: str, shown: str) -> Distribution:
    try:
        return distribution(name)
    except PackageNotFoundError as error:
        raise MissingPackage(
            f"{shown} must be installed here, for its version or its extras are written down, and is not; install it"
            " (a container's context can take a lock file instead: --set requirements=FILE)"
        ) from error
