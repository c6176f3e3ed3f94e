"""An export folder: what a target writes, the golden set beside it, and the manifest with a digest of every file."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from headway import __version__
from headway.deploy import targets
from headway.deploy.staging import staged
from headway.discovery import find, first_line, names
from headway.records import (
    Autoscaling,
    BundledVariant,
    ConfigError,
    ExpectedThere,
    Export,
    MissingPackage,
    ServerPolicy,
    TensorSpec,
    to_json,
)
from headway.serve import OpenBundle, check_name, file_digest, model_files
from headway.serve.golden import tolerance

FORMAT = 1
MANIFEST = "export.json"
GOLDEN = "golden.npz"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a target is asked to write.

    Attributes:
        folder: empty; everything below it is the export. ``golden.npz`` and ``export.json`` are added afterwards.
        index: the bundle's variant to export.
        name: of the model, fit for a URL.
        scaling: settings of an autoscaler; none: not planned.
        replicas: planned ones with the spare; none: not planned.
        settings: from ``--set``; only names that the target knows.
    """

    bundle: OpenBundle
    folder: Path
    index: int = 0
    name: str
    scaling: Autoscaling | None = None
    replicas: int | None = None
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def bundled(self) -> BundledVariant:
        """The variant."""
        return self.bundle.manifest.variants[self.index]

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Of the model."""
        return self.bundle.manifest.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Of the model."""
        return self.bundle.manifest.outputs

    def copy_model(self, place: str) -> Path:
        """The variant's ONNX file at ``place`` inside the folder, with its external data files beside it under their own names."""
        source = self.bundle.model_path(self.index)
        target = self.folder / place
        for file in model_files(self.bundle.root, self.bundled.file):
            to = target if file == source else target.parent / file.relative_to(source.parent)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, to)
        return target


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What a target wrote.

    Attributes:
        model: the ONNX file, relative to the folder; empty: none of its own (a whole bundle, say).
        policy: how its server batches.
        start: commands that start it, from inside the folder; for people and for ``README``.
    """

    model: str
    policy: ServerPolicy
    start: tuple[str, ...]
    notes: tuple[str, ...] = ()


def write_export(
    target: str,
    bundle: OpenBundle,
    folder: Path,
    *,
    variant: str = "",
    name: str = "",
    scaling: Autoscaling | None = None,
    replicas: int | None = None,
    settings: Mapping[str, str] | None = None,
    expect: Callable[[BundledVariant, ServerPolicy], tuple[ExpectedThere | None, tuple[str, ...]]] = lambda bundled, policy: (None, ()),
) -> Export:
    """A bundle's variant written to ``folder`` for another server; the folder appears whole or not at all, and replaces an older export.

    Args:
        variant: of the bundle; none: the first.
        name: of the model there; none: the bundle's.
        expect: what is expected of the variant behind a server that batches so, and notes on that.

    Raises:
        ConfigError: the target, the variant, the name or a setting is not known.
        MissingPackage: the target's file needs a package that is not installed.
        Unsupported: the target cannot serve the variant.
        InputError: the folder cannot be written.
    """
    module = target_module(target)
    index = _index(bundle, variant)
    name = name or bundle.manifest.name
    check_name(name)
    given = dict(settings or {})
    unknown = sorted(set(given) - set(module.SETTINGS))
    if unknown:
        known = ", ".join(sorted(module.SETTINGS)) or "none"
        raise ConfigError(f"--set: the settings of {target} are {known}; got {', '.join(unknown)}")
    with staged(folder, MANIFEST, "an export") as stage:
        request = Request(
            bundle=bundle, folder=stage, index=index, name=name, scaling=scaling, replicas=replicas, settings=given
        )  # fmt: skip
        written: Written = module.write(request)
        expected, told = expect(request.bundled, written.policy)
        _write_golden(stage / GOLDEN, bundle, index)
        export = Export(
            format=FORMAT, target=target, created=datetime.now(UTC).isoformat(timespec="seconds"), version=__version__, model=name,
            variant=request.bundled.variant.name, file=written.model, files=digests(stage), inputs=bundle.manifest.inputs,
            outputs=bundle.manifest.outputs, golden=GOLDEN, tolerance=tolerance(bundle.manifest, index), objective=bundle.manifest.objective,
            policy=written.policy, start=written.start, scaling=scaling, expected=expected,
            notes=(*written.notes, *told),
        )  # fmt: skip
        write_manifest(stage, export)
    return export


def write_manifest(folder: Path, export: Export) -> None:
    """``export.json`` anew."""
    (folder / MANIFEST).write_bytes(to_json(export) + b"\n")


def target_module(target: str) -> targets.Target:
    """The file of a target.

    Raises:
        ConfigError: there is no such target.
        MissingPackage: its package is not installed.
    """
    found = find(targets, target)
    if target in found.missing:
        raise MissingPackage(f"--to {target}: {found.missing[target]}; install it: pip install 'headway[{target}]'")
    if target not in found.present:
        raise ConfigError(f"--to must be one of {', '.join(names(targets))}, got {target!r}")
    return found.present[target]


def target_lines() -> str:
    """Every target with the first line of its file, for help."""
    return " ".join(f"{name}: {first_line(targets, name)}" for name in names(targets))


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder but the manifest, by its path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in files}


def _index(bundle: OpenBundle, variant: str) -> int:
    known = [bundled.variant.name for bundled in bundle.manifest.variants]
    if variant and variant not in known:
        raise ConfigError(f"--variant must be one of {', '.join(known)}, got {variant!r}")
    return known.index(variant) if variant else 0


def _write_golden(path: Path, bundle: OpenBundle, index: int) -> None:
    arrays = {f"input/{name}": array for name, array in bundle.golden.inputs.items()}
    arrays |= {f"output/{name}": array for name, array in bundle.golden.outputs[index].items()}
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]  # numpy 1.26 has no allow_pickle here
