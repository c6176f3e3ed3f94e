"""The frontier as a PNG, for a README: drawn from records, so that nobody edits a picture by hand."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import altair as alt
import vl_convert

from headway.records import BundleError, Line, Record, from_json, read_journal
from headway.report import charts, theme
from headway.report.fold import gather
from headway.report.rows import frontier_rows
from headway.report.written import write_whole


def frontier_png(records: Path | Sequence[Record], path: Path, *, scale: float = 2.0) -> Path:
    """The path of a PNG of latency against throughput, on white, with legends.

    Args:
        records: a run folder, a JSON-lines file in the form of ``records.jsonl`` under any name, or records themselves.
        path: where the picture goes; replaced in one move.
        scale: pixels for one unit of the picture; 2 suits dense screens.

    Raises:
        BundleError: there are no records, or none of them can stand in the picture.
        InputError: the picture cannot be written.
    """
    run = gather(_lines(records))
    rows = frontier_rows(run)
    if not rows:
        raise BundleError(
            "frontier: the records must hold a candidate with a rate and a latency, got none. Let a run measure at least one candidate."
        )
    chart = charts.frontier(rows, run.objective, theme.PRINT, legends=True)
    version = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    picture = vl_convert.vegalite_to_png(chart.to_json(), vl_version=version, scale=scale)
    return write_whole(path, picture)


def _lines(records: Path | Sequence[Record]) -> Iterable[Record]:
    if not isinstance(records, Path):
        return records
    if not records.is_file():
        return read_journal(records)
    lines = records.read_text("utf-8").splitlines()
    return [from_json(text, Line, f"{records}:{number}") for number, text in enumerate(lines, start=1) if text.strip() and not _head(text)]


def _head(text: str) -> bool:
    """Whether a line is the format line, or the environment line a benchmark writes before its records."""
    try:
        return "record" not in json.loads(text)
    except json.JSONDecodeError:
        return False
