"""The page: whole, safe, true to the records, and written for a run in any state."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import msgspec
import pytest
import vl_convert

from headway.records import BundleError, Choice, Comparison, InputError, LoadRun, Percentile, Record, Rejection, RunFinished
from headway.report.fold import gather
from headway.report.page import page, render
from test_report_example import CHOSEN, SPEED, choice, comparison, frontier, load_point, quality, started, variant, whole_run, write

HOSTILE = "</script><script>alert(1)</script><img src=https://evil.example/x onerror=alert(2)>"
ADDRESSED = {"src", "href", "srcset", "action", "poster", "data", "background", "xlink:href", "formaction", "ping", "manifest"}


class Page(HTMLParser):
    """What a browser would find: elements, text, specifications of charts, style, and every address referred to."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.metas: list[dict[str, str | None]] = []
        self.charts: dict[str, dict] = {}
        self.places: set[str] = set()
        self.text = self.style = self.title = self.scripts = ""
        self._inside, self._chart = "", ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.elements.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ADDRESSED]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        if tag == "meta":
            self.metas.append(found)
        if found.get("class") == "chart":
            self.places.add(found["id"] or "")
        self._inside, self._chart = tag, found.get("data-chart") or ""

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            if self._chart:
                self.charts[self._chart] = json.loads(data, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
            else:
                self.scripts += data
        elif self._inside == "style":
            self.style += data
        else:
            self.text += f"{data}\n"

    def rows(self, chart: str) -> list[int]:
        """Number of rows in each data set of a chart."""
        return [len(rows) for rows in self.charts[chart]["datasets"].values()]


def drawn(lines: list[Record]) -> Page:
    return Page(page(gather(lines), Path("runs/demo-vision")))


@pytest.fixture(scope="module")
def whole() -> Page:
    return drawn(whole_run())


def test_nothing_outside_the_file_is_referred_to(whole: Page) -> None:
    assert whole.addresses == []
    assert not {"link", "iframe", "object", "embed", "base", "form", "img"} & set(whole.elements)
    assert "url(" not in whole.style and "@import" not in whole.style
    policy = next(meta["content"] for meta in whole.metas if meta.get("http-equiv") == "Content-Security-Policy") or ""
    assert "default-src 'none'" in policy
    assert "http" not in policy
    assert "'unsafe-inline'" not in policy.split("script-src")[1]
    for spec in whole.charts.values():
        assert "http" not in json.dumps(spec)
        assert '"url"' not in json.dumps(spec)


def test_every_chart_is_there_with_its_rows(whole: Page) -> None:
    assert whole.places == set(whole.charts)
    loaded, curves = len(SPEED), 4
    assert {name for name in whole.charts if name.startswith("chart-load-")} == {f"chart-load-{i}" for i in range(loaded)}
    assert {name for name in whole.charts if name.startswith("chart-curve-")} == {f"chart-curve-{i}" for i in range(curves)}
    # candidates measured in process, three roles over HTTP, three plans that were only predicted
    assert loaded + 3 + 3 in whole.rows("chart-frontier")
    assert 3 * 3 in whole.rows("chart-rounds")
    assert loaded in whole.rows("chart-parity")
    batches = 5
    assert sum(max(whole.rows(f"chart-curve-{i}")) for i in range(curves)) == 2 * len(SPEED) * batches
    runs = sum(isinstance(line, LoadRun) and line.role == "candidate" for line in whole_run())
    assert sum(max(whole.rows(f"chart-load-{i}")) for i in range(loaded)) == 4 * runs


def test_charts_are_vega_lite_that_compiles_and_fits_its_place(whole: Page) -> None:
    for spec in whole.charts.values():
        assert spec["width"] == "container"
        assert spec["autosize"]["contains"] == "padding"
        assert vl_convert.vegalite_to_vega(spec, vl_version="6.4")["marks"]


def test_the_headline_says_choice_gain_and_loss_with_intervals(whole: Page) -> None:
    text = whole.text.replace("\N{NO-BREAK SPACE}", " ")
    assert "Objective met: p99 ≤ 20 ms, rate ≥ 200/s, drop ≤ 1%, group_drop ≤ 3%" in text
    assert "Chosen: lite0/fold+static-u8s8 (int8) on openvino, 2 instances of 1 thread, batches of at most 4." in text
    gain = "Over HTTP it holds 6.67x [6.20, 7.10] the rate of the naive deployment and 2.54x [2.40, 2.70] the rate of the best"
    assert gain in text.replace("\N{MULTIPLICATION SIGN}", "x")
    assert "0.4 points worse than the original" in text and "1,988 samples" in text


@pytest.mark.parametrize(
    "words",
    [
        "did nothing: fold",
        "19% of the work stays in float32",
        "onnx_runtime has no bfloat16 kernels on this CPU",
        "drop 3.1 points is above the bound",
        "102 lost, 56 won",
        "night",
        "NonMaxSuppression",
        "AVX512_VNNI",
        '"budget": "10m"',
        "headway serve runs/demo-vision",
        "headway report runs/demo-vision",
        "Left out: 12 predicted plans",
        "This machine was busy with other work: figures may be off.",
        "515 held, 563 not",
        "Predicted capacity is off by 5%",
        "Budget 10 min 00 s",
    ],
)
def test_the_page_holds(whole: Page, words: str) -> None:
    assert words in whole.text


def test_what_the_records_say_is_text_and_never_markup(whole: Page) -> None:
    candidate = msgspec.structs.replace(CHOSEN, variant=HOSTILE)
    run = whole_run()
    run[0] = started(name=HOSTILE, config={HOSTILE: HOSTILE}, sources={HOSTILE: HOSTILE})
    run += [
        variant(HOSTILE),
        msgspec.structs.replace(
            quality("lite0", "openvino", "report", 99), variant=HOSTILE, metric=HOSTILE, reason=HOSTILE, verdict="held"
        ),
        Rejection(stage=HOSTILE, variant=HOSTILE, plan=None, reason=HOSTILE, figures={HOSTILE: 1.0}),
        LoadRun(candidate=candidate, role="candidate", round=0, point=load_point(100.0, 500.0, 0.004)),
        msgspec.structs.replace(choice(), candidate=candidate, reasons=(HOSTILE,), failing_bound=HOSTILE, shortfall=HOSTILE, met=False),
        RunFinished(budget_s=None, left_out=(HOSTILE,), warnings=(HOSTILE,)),
    ]
    found = drawn(run)
    more = len(found.charts) - len(whole.charts)  # the hostile candidate has a load chart of its own
    assert found.elements.count("script") == whole.elements.count("script") + more
    assert found.scripts == whole.scripts
    assert found.addresses == [] and found.handlers == []
    assert "img" not in found.elements
    assert found.text.count(HOSTILE) > 8
    assert HOSTILE in json.dumps(found.charts["chart-load-0"]["datasets"]) or HOSTILE in json.dumps(
        found.charts["chart-frontier"]["datasets"]
    )


@pytest.mark.parametrize(
    ("keep", "says"),
    [
        (0, "Nothing is recorded yet"),
        (1, "The run was interrupted"),
        (2, "The run was interrupted"),
        (12, "kept so far: 5 variants"),
        (40, "12 service curves"),
        (60, "load runs"),
        (-3, "The run was interrupted after its choice"),
    ],
)
def test_an_interrupted_run_gets_a_page_that_says_so(keep: int, says: str) -> None:
    found = drawn(whole_run()[:keep])
    assert says in found.text
    assert found.places == set(found.charts)


def test_an_objective_that_is_not_met_names_the_bound_and_the_nearest() -> None:
    lost = Choice(met=False, candidate=CHOSEN, reasons=(), latency_s=0.031, failing_bound="p99<=20ms", shortfall="p99 is 31 ms, 55% above")
    text = drawn([line for line in whole_run() if not isinstance(line, Choice)] + [lost]).text
    assert "Objective not met" in text
    assert "The bound p99<=20ms fails: p99 is 31 ms, 55% above. Nearest: lite0/fold+static-u8s8" in text
    assert "headway serve" not in text


def test_numbers_that_are_none_or_endless_do_not_break_the_page() -> None:
    endless = (
        Percentile(q=0.5, latency_s=0.01, low_s=0.0, high_s=float("inf")),
        Percentile(q=0.99, latency_s=float("inf"), low_s=0.02, high_s=float("inf")),
    )
    point = msgspec.structs.replace(load_point(90.0, 500.0, 0.004), percentiles=endless, mean_batch=float("nan"))
    nothing = msgspec.structs.replace(load_point(95.0, 500.0, 0.004), percentiles=())
    lines = [line for line in whole_run() if not isinstance(line, Comparison)]
    lines += [LoadRun(candidate=CHOSEN, role="candidate", round=0, point=p) for p in (point, nothing)]
    lines.append(msgspec.structs.replace(comparison(), points={"naive": (nothing,), "chosen": (point,)}))
    found = drawn(lines)
    assert found.places == set(found.charts)


def test_a_later_line_replaces_an_earlier_one() -> None:
    again = msgspec.structs.replace(choice(), met=False, failing_bound="rate>=200/s")
    assert gather([*whole_run(), again, frontier()]).choice == again
    assert len(gather([*whole_run(), *whole_run()]).variants) == 5
    assert len(gather([*whole_run(), *whole_run()]).loads) == len(gather(whole_run()).loads)


def test_render_writes_one_file_and_again(tmp_path: Path) -> None:
    folder = write(tmp_path / "a run", whole_run()[:20])
    path = render(folder)
    assert path == folder / "report.html"
    path.write_text("old")
    assert render(folder).read_text("utf-8").startswith("<!doctype html>")
    assert sorted(file.name for file in folder.iterdir()) == ["records.jsonl", "report.html"]
    assert "headway report '" in path.read_text("utf-8") or "headway report &#39;" in path.read_text("utf-8")


def test_a_torn_last_line_is_left_out_and_kept(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", whole_run()[:20])
    file = folder / "records.jsonl"
    torn = file.read_bytes()[:-40]
    file.write_bytes(torn)
    assert "The run was interrupted" in render(folder).read_text("utf-8")
    assert file.read_bytes() == torn


def test_a_page_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", whole_run()[:1])
    (folder / "report.html").mkdir()
    with pytest.raises(InputError, match=r"report\.html: must be writable"):
        render(folder)
    assert sorted(file.name for file in folder.iterdir()) == ["records.jsonl", "report.html"]


def test_no_run_no_page(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="must be a run folder"):
        render(tmp_path)


def test_the_template_is_part_of_the_package() -> None:
    folder = files("headway.report") / "template"
    assert {file.name for file in folder.iterdir()} == {"page.html.j2", "page.css", "page.js"}


def test_a_candidate_without_quality_is_drawn_and_said_to_be_unscored(whole: Page) -> None:
    assert "not scored" not in whole.text
    candidate = msgspec.structs.replace(CHOSEN, variant="fresh")
    found = drawn([*whole_run(), LoadRun(candidate=candidate, role="candidate", round=0, point=load_point(100.0, 500.0, 0.004))])
    assert "not scored" in found.text
    assert max(found.rows("chart-frontier")) == max(whole.rows("chart-frontier")) + 1
