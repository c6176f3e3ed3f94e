"""``report.html``: one file that refers to nothing outside itself, written in one move."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import shlex
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import altair as alt
import jinja2
import vl_convert
from markupsafe import Markup

from headway.records import Candidate, read_journal
from headway.report import charts, tables, theme
from headway.report.fold import Run, gather
from headway.report.headline import headline, prediction_words
from headway.report.rows import Panel, curve_panels, frontier_rows, load_panels, parity_rows, round_rows
from headway.report.wording import duration, objective_words, percent
from headway.report.written import write_whole

FILE = "report.html"
TEMPLATE = Path(__file__).parent / "template"
_FIRST = 6


@dataclass(frozen=True)
class Figure:
    """One chart of the page: its specification as text that is safe inside a script element, a title and a note."""

    id: str
    spec: Markup
    title: str = ""
    note: str = ""


def render(run_folder: Path) -> Path:
    """The path of ``report.html``, written anew from the run's records; a run in any state gets a page that says so.

    Raises:
        BundleError: the folder holds no readable records.
        InputError: the folder cannot be written; an older report stays as it was.
    """
    run_folder = Path(run_folder)
    text = page(gather(read_journal(run_folder)), run_folder)
    return write_whole(run_folder / FILE, text.encode("utf-8"))


def page(run: Run, run_folder: Path) -> str:
    """The whole HTML text of a run's report."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    scripts = [Markup(chart_library()), Markup((TEMPLATE / "page.js").read_text("utf-8"))]
    return environment.get_template("page.html.j2").render(
        run=run,
        name=run.started.name if run.started else run_folder.resolve().name,
        head=headline(run),
        figures=_figures(run),
        tables=tables,
        legend=_legend(run),
        errors=_error_words(run),
        config=json.dumps(run.started.config, indent=2, sort_keys=True, default=str) if run.started else "",
        objective=objective_words(run.objective),
        commands=_commands(run, run_folder),
        style=Markup((TEMPLATE / "page.css").read_text("utf-8")),
        scripts=scripts,
        hashes=" ".join(script_hash(script) for script in scripts),
        duration=duration,
        first=_FIRST,
    )


def _figures(run: Run) -> dict[str, list[Figure]]:
    """The page's charts by section; a section without data has none."""
    here, found = theme.PAGE, {}
    points, compared, pairs = frontier_rows(run), round_rows(run), parity_rows(run)
    found["frontier"] = [drawn("frontier", charts.frontier(points, run.objective, here))] if points else []
    found["rounds"] = [drawn("rounds", charts.rounds(compared, run.objective, here))] if compared else []
    drawable = [row for row in pairs if not math.isnan(float(str(row["measured_per_s"])))]
    found["parity"] = [drawn("parity", charts.parity(drawable, here))] if drawable else []
    names = _names(run)
    found["curves"] = [
        drawn(f"curve-{i}", charts.service_curve(panel.rows, names, here), panel) for i, panel in enumerate(curve_panels(run))
    ]
    panels = load_panels(run)
    latencies = [float(str(row[key])) for panel in panels for row in panel.rows for key in ("low_ms", "high_ms")]
    shares = _percentiles(panels)
    found["loads"] = [
        drawn(f"load-{i}", charts.load_curve(panel.rows, shares, run.objective, here, latencies), panel) for i, panel in enumerate(panels)
    ]
    return found


def drawn(name: str, chart: alt.LayerChart, panel: Panel | None = None) -> Figure:
    spec = chart.to_dict()
    del spec["$schema"]  # the page names the language itself, and refers to no address
    # Inside a script element only "<" can end the element or open a comment; JSON may write any character as \u.
    text = json.dumps(spec, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return Figure(f"chart-{name}", Markup(text), panel.title if panel else "", panel.note if panel else "")


def _legend(run: Run) -> dict[str, object]:
    """What the charts' colours mean, for the page to draw where it can wrap."""
    points = frontier_rows(run)
    limit = charts.drop_limit(points, run.objective)
    shares = run.quality_of(run.choice.candidate) if run.choice and run.choice.candidate else next(iter(run.qualities), None)
    words = percent if shares is None or shares.higher_is_better else lambda value: f"{value:.3g}"
    percentiles = _percentiles(load_panels(run))
    return {
        "loss": [(colour, words(limit * i / 2)) for i, colour in enumerate(theme.LOSS)],
        "variants": list(zip(_names(run), charts.colours(len(_names(run))), strict=True)),
        "percentiles": list(zip(percentiles, charts.tints(len(percentiles)), strict=True)),
        "kinds": sorted({str(row["kind"]) for row in points}, key=charts.KINDS.index),
        "unscored": theme.UNKNOWN if any(row["drop"] is None for row in points) else "",
    }


def _names(run: Run) -> list[str]:
    return list(dict.fromkeys(curve.variant for curve in run.curves))


def _percentiles(panels: Sequence[Panel]) -> list[str]:
    found = {str(row["percentile"]) for panel in panels for row in panel.rows}
    return sorted(found, key=lambda name: float(name[1:]))


def _error_words(run: Run) -> str:
    """How good the predictions were in-process and, where the front end was in them, over HTTP."""
    served = _served_errors(run)
    return " ".join([prediction_words(_capacity_errors(run)), *([prediction_words(served, "over HTTP")] if served else [])])


def _served_errors(run: Run) -> list[float]:
    predicted = {p.candidate: p.served_per_s for p in run.predictions if p.served_per_s is not None}
    measured: dict[Candidate, list[float]] = {}
    for line in run.rounds:
        if line.target == "http" and line.role != "naive" and not line.open_above and line.rate_per_s > 0:
            measured.setdefault(line.candidate, []).append(line.rate_per_s)
    return [predicted[candidate] / statistics.median(rates) - 1 for candidate, rates in measured.items() if candidate in predicted]


def _capacity_errors(run: Run) -> list[float]:
    pairs = [(float(str(row["predicted_per_s"])), float(str(row["measured_per_s"]))) for row in parity_rows(run) if not row["open_above"]]
    return [
        predicted / measured - 1 for predicted, measured in pairs if math.isfinite(predicted) and math.isfinite(measured) and measured > 0
    ]


def _commands(run: Run, run_folder: Path) -> list[tuple[str, str]]:
    """What to type next, with what it does."""
    folder = shlex.quote(str(run_folder))
    again = (f"headway report {folder}", "draw this page again")
    if run.choice is None or not run.choice.met:
        return [again]
    rate = run.objective.rate_per_s or (run.choice.rate_per_s or 100.0) * 0.7
    load = f"headway load http://127.0.0.1:8000 --rate {rate:.3g} --for 30s --slo {shlex.quote(str(run.objective))}"
    return [
        (f"headway serve {folder} --http 127.0.0.1:8000", "serve the choice on this machine"),
        (load, "load it and check the promise"),
        again,
    ]


@cache
def chart_library() -> str:
    """Vega, Vega-Lite and vega-embed as one script, of the version that Altair writes for."""
    version = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    return vl_convert.javascript_bundle(vl_version=version).replace("</script", "<\\/script")


def script_hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode('utf-8')).digest()).decode()}'"
