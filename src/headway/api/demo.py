"""``demo``: a real model and real data, then the same path that any user takes."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from headway.api.config import TuneConfig
from headway.api.progress import Progress, Silent
from headway.api.tune import tune
from headway.demo import Case, demo_names, find_demo
from headway.records import ConfigError, MissingPackage, Summary

EXTRAS = {"text": "demo-text", "speech": "demo-speech"}


def cache_folder() -> Path:
    """Where demos keep what they fetched and trained."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headway" / "demo"


def run_demo(
    name: str,
    *,
    out: str = "",
    budget: str = "",
    slo: str = "",
    track: tuple[str, ...] = (),
    resume: bool = False,
    progress: Progress | None = None,
) -> tuple[Case, Summary]:
    """The demo's case and the Summary of its run.

    Raises:
        ConfigError: no such demo.
        MissingPackage: its packages are not installed.
    """
    progress = progress or Silent()
    found = find_demo(name)
    if name in found.missing:
        raise MissingPackage(f"the demo {name!r} {found.missing[name]}; run: pip install 'headway[{EXTRAS.get(name, 'demo')}]'")
    if name not in found.present:
        close = difflib.get_close_matches(name, demo_names(), n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(demo_names())}"
        raise ConfigError(f"the name of a demo must be known, got {name!r}; {hint}")
    progress.stage(f"demo {name}: model and data", 4)
    case = found.present[name].build(cache_folder(), progress.step)
    config = TuneConfig(
        models=(case.model,),
        data=str(case.data),
        train=str(case.train or ""),
        slo=slo or case.objective,
        out=out or f"runs/demo-{name}",
        budget=budget,
        metric=case.metric,
        track=track,
    )
    return case, tune(config, resume=resume, progress=progress)
