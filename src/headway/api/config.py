"""The options of ``tune``: from the command line, from ``headway.toml`` beside the model, or from a program."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import msgspec

from headway.api.placing import check_place
from headway.data import ImageSettings
from headway.discovery import Found
from headway.load.arriving import parse_arrivals
from headway.records import ConfigError, Objective
from headway.track import tracker_names

FILE = "headway.toml"
_DURATION = re.compile(r"^\s*([0-9]*\.?[0-9]+)\s*(s|m|min|h)?\s*$")
_SECONDS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, None: 1.0}


class TuneConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every option of ``tune``; a key of ``headway.toml`` has the same name.

    Attributes:
        models: one or more model references; several compete.
        data: reference of the labelled samples.
        slo: the objective as text, such as ``p99<=20ms, rate>=200/s, drop<=1%``.
        out: run folder; ``runs/NAME`` by default.
        budget: bound on the whole run, such as ``10m``; none: the standard effort.
        train: reference of samples to learn from, other rows than ``data``: with it, techniques that cost quality are followed by ``recover``.
        students: references of smaller models that learn from the first of ``models`` and compete with it; they need ``train``.
        techniques, runtimes: names to consider; empty means all that are usable here.
        exporters: routes from torch to ONNX to compare; empty means all.
        metric: name of the quality metric, or ``python:module:callable``; for a model with several labelled outputs one for all, or a table of
            metrics by output; empty chooses by the labels.
        track: names of trackers.
        images: for a folder of images, how pixels become numbers: a table with ``scale``, ``mean``, ``std``, ``crop``, ``size``.
        compare: whether to measure the naive deployment and the best uncompressed plan over HTTP beside the winner.
        on: where work is done besides this process: ``ray``, ``ray:HOST:PORT`` or ``ray://HOST:PORT``; empty: nowhere.
    """

    models: tuple[str, ...] = ()
    data: str = ""
    slo: str = ""
    out: str = ""
    budget: str = ""
    train: str = ""
    students: tuple[str, ...] = ()
    techniques: tuple[str, ...] = ()
    runtimes: tuple[str, ...] = ()
    exporters: tuple[str, ...] = ()
    metric: str | dict[str, str] = ""
    seed: int = 0
    track: tuple[str, ...] = ()
    images: ImageSettings | None = None
    compare: bool = True
    on: str = ""

    @property
    def budget_s(self) -> float | None:
        """The budget in seconds, or none."""
        return parse_duration(self.budget, "budget") if self.budget else None


def metrics(given: Sequence[str]) -> str | dict[str, str]:
    """What ``--metric`` says: one metric, or one an output, each as ``OUTPUT=METRIC``.

    Raises:
        ConfigError: several metrics of which one names no output, or an output given twice.
    """
    pairs = [text.partition("=") for text in given]
    if len(pairs) == 1 and not pairs[0][1]:
        return given[0]
    for output, _, name in pairs:
        if not (output and name):
            raise ConfigError(f"--metric: one of several must be OUTPUT=METRIC, got {output or name!r}; name the output it judges")
    if len({output for output, _, _ in pairs}) < len(pairs):
        raise ConfigError(f"--metric: every output must be given once, got {', '.join(given)}; remove one")
    return {output: name for output, _, name in pairs}


def parse_duration(text: str, what: str) -> float:
    """Seconds from ``90s``, ``10m``, ``1.5h`` or a bare number of seconds.

    Raises:
        ConfigError: the text is none of these, or not above zero.
    """
    match = _DURATION.match(text)
    if not match or float(match.group(1)) <= 0:
        raise ConfigError(f"{what}: must be a duration above zero such as 90s, 10m or 1h, got {text!r}")
    return float(match.group(1)) * _SECONDS[match.group(2)]


def configured(options: Mapping[str, object], folder: Path | None) -> TuneConfig:
    """The options given, over those of ``headway.toml`` in ``folder`` (if there is one), over the defaults.

    Raises:
        ConfigError: an unknown key, a value of the wrong type, or a missing required option.
    """
    known = {field.name: field for field in msgspec.structs.fields(TuneConfig)}
    settings: dict[str, object] = {}
    file = folder / FILE if folder is not None else None
    if file is not None and file.is_file():
        settings = _read(file, set(known))
    settings.update({key: value for key, value in options.items() if value not in (None, (), "", [], {})})
    try:
        config = msgspec.convert(settings, TuneConfig, strict=True)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{file or 'options'}: {error}") from error
    for name, flag in (("models", "MODEL"), ("data", "--data"), ("slo", "--slo")):
        if not getattr(config, name):
            raise ConfigError(f"{flag} must be given, on the command line or as {name!r} in {FILE}")
    return config


def _read(file: Path, known: set[str]) -> dict[str, object]:
    try:
        settings = msgspec.toml.decode(file.read_bytes(), type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: must be valid TOML, got: {error}") from error
    for key in settings:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(sorted(known))}"
            raise ConfigError(f"{file}: the key {key!r} is not known; {hint}")
    return settings


def model_folder(models: tuple[str, ...] | list[str]) -> Path:
    """Where ``headway.toml`` is looked for: beside the first model file, else the current folder."""
    if models and not models[0].startswith("python:"):
        return Path(models[0]).resolve().parent
    return Path.cwd()


def check_words(config: TuneConfig, objective: Objective) -> None:
    """Nothing; what can be known to be wrong before a model is read is refused here, before anything is written.

    Raises:
        ConfigError: the budget is no duration, ``on`` is no place, or the arrival process or a tracker is not known.
    """
    if config.budget:
        parse_duration(config.budget, "budget")
    check_place(config.on)
    parse_arrivals(objective.arrivals)
    for name in config.track:
        known_name("tracker", name, tracker_names())


def known_name(kind: str, name: str, known: Collection[str]) -> None:
    """Nothing.

    Raises:
        ConfigError: the name is not among the known ones.
    """
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
        raise ConfigError(f"{kind} must be known, got {name!r}; {hint}")


def known_names(kind: str, wanted: tuple[str, ...], found: Found, hidden: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The wanted names, checked against what discovery found; all usable ones (but the hidden) when none is wanted.

    Raises:
        ConfigError: a name is unknown, or its packages are missing.
    """
    for name in wanted:
        if name in found.missing:
            raise ConfigError(f"{kind} {name!r} {found.missing[name]}")
        known_name(kind, name, found.present)
    return wanted or tuple(name for name in found.present if name not in hidden)
