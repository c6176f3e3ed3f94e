"""What ``load`` prints: a line while it goes on, one run on one screen, the trials of a search and its result, a scenario's result, an audit."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from headway.api.load_find import FoundCapacity
from headway.api.progress import Progress
from headway.cli.output import drawn_progress
from headway.load import Seen
from headway.load.audit import Audited
from headway.load.scenarios.contract import ScenarioResult
from headway.records import LoadPoint, Objective
from headway.report.load_words import live_words, trust_words, verdict_words
from headway.report.wording import ms, number, objective_words, percent, rate

_TAIL = 0.025
"""Of a two-sided interval at 95%."""
_TONES = {"passed": "green", "failed": "red", "held": "green", "missed": "red"}


class LiveLine:
    """One line on a terminal: the stage, and how the run goes. Drawn only when there is news, twice a second at most, since it takes time
    from the sender in the same process."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._stage = ""

    def __enter__(self) -> LiveLine:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def stage(self, title: str, steps: int) -> None:
        """A stage begins."""
        self._stage = title
        self._draw(title)

    def step(self, text: str) -> None:
        """One step begins."""
        self._draw(f"{self._stage}: {text}")

    def note(self, text: str) -> None:
        """A line that stays."""
        self._console.print(f"  {text}", style="yellow", markup=False, highlight=False, soft_wrap=True)

    def tell(self, seen: Seen) -> None:
        """How the run goes."""
        self._draw(live_words(seen))

    def _draw(self, text: str) -> None:
        self._live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)


def load_progress(as_json: bool) -> AbstractContextManager[Progress]:
    """The line on a terminal; where there is none, or JSON is wanted, stages alone and nothing in between."""
    console = Console(stderr=True)
    return LiveLine(console) if console.is_terminal and not as_json else drawn_progress()


def print_load(console: Console, point: LoadPoint, objective: Objective, notes: Sequence[str] = ()) -> None:
    """The verdict, what was offered and achieved, percentiles with intervals, and why the figures can be believed."""
    _line(console, f"{point.verdict}: {objective_words(objective)}", f"bold {_TONES.get(point.verdict, 'yellow')}")
    _line(console, verdict_words(point, objective))
    _line(console, f"offered   {rate(point.offered_rate_per_s)}  ({point.arrivals}, seed {point.seed}, {point.target})")
    over = f"over {number(point.duration_s)} s with the wait for the last answer"
    _line(console, f"achieved  {rate(point.achieved_rate_per_s)}  (in time {rate(point.goodput_per_s)}), {over}")
    _line(
        console, f"requests  {point.sent:,} sent, {point.completed:,} answered, {point.refused:,} refused, {point.failed:,} failed or lost"
    )
    if point.verdict != "generator-bound":
        console.print(_latencies(point))
    for sentence in trust_words(point, objective):
        _line(console, sentence, "dim")
    for note in notes:
        _line(console, f"! {note}", "yellow")


def _latencies(point: LoadPoint) -> Table:
    table = Table(box=box.SIMPLE_HEAD, header_style="dim", pad_edge=False, padding=(0, 1))
    table.add_column("latency from the due time")
    for head in ("[ms]", "95% interval [ms]"):
        table.add_column(Text(head), justify="right")
    answered = point.sent - point.refused
    for found in point.percentiles:
        told = found.q**answered <= _TAIL  # else the true percentile may well lie above every sample
        between = f"{number(found.low_s * 1e3)} to {number(found.high_s * 1e3)}" if told else f"{number(found.low_s * 1e3)} or more"
        table.add_row(f"p{found.q * 100:g}", number(found.latency_s * 1e3), between)
    table.add_row("mean", number(point.mean_s * 1e3), "")
    return table


def print_trial(console: Console, search: int, point: LoadPoint, objective: Objective) -> None:
    """One line a trial: rate, percentile, share of misses, and whether it counts as held."""
    held = point.miss_fraction <= 1 - objective.percentile + 1e-9 and point.achieved_rate_per_s > 0
    quoted = ms(point.percentile(objective.percentile).latency_s) if point.percentiles else "none"
    if point.verdict == "generator-bound":
        quoted = f"≤ {quoted}" if held else "not quoted"  # what counts from the due time holds the generator's lateness too
    line = Text(f"  {search}  {rate(point.offered_rate_per_s):>10}  {objective.percentile_name} {quoted:>12}  ")
    line.append(f"{percent(point.miss_fraction):>7} late  ")
    line.append("holds" if held else "fails", "green" if held else "red")
    if point.verdict == "generator-bound":
        line.append("  (the generator was late)", "yellow")
    console.print(line)


def print_capacity(console: Console, found: FoundCapacity) -> None:
    """The capacity, its interval over the searches, and what limits the claim."""
    words = objective_words(found.objective)
    if found.rate_per_s == 0:
        lowest = min(point.offered_rate_per_s for point in found.points)
        _line(console, f"holds nothing: {words} was not kept at {rate(lowest)} either", "bold red")
        return
    at_least = "at least " if found.open_above or found.generator_bound else ""
    _line(
        console,
        f"capacity {at_least}{rate(found.rate_per_s)}  [{number(found.low_per_s)}, {number(found.high_per_s)}]  {words}",
        "bold green",
    )
    searches = f"the median of {found.searches} searches" if found.searches > 1 else "one search"
    _line(
        console,
        f"{searches} with {len(found.points)} trials; in brackets the smallest rate that held and the largest that did not, of any search",
        "dim",
    )
    if found.generator_bound:
        _line(console, "! the generator was late where it failed: the target may hold more; use --senders 2, or another machine", "yellow")
    elif found.open_above:
        _line(console, "! everything that was tried held: give a higher --rate to begin with", "yellow")


def print_scenario(console: Console, found: ScenarioResult) -> None:
    """The scenario's result, whether it is valid and conforms, and why not."""
    tone = "bold green" if found.conforming else "bold yellow" if found.valid else "bold red"
    word = "valid" if found.conforming else "valid, not conforming" if found.valid else "not valid"
    value = ms(found.value) if found.unit == "s" else rate(found.value)
    _line(console, f"{found.scenario}: {word}", tone)
    _line(console, f"{found.metric}: {value if found.value else 'none'}", "bold")
    queries = f"{found.queries:,} {'query' if found.queries == 1 else 'queries'}"
    counted = queries if found.samples == found.queries else f"{queries}, {found.samples:,} samples"
    _line(console, f"{counted} in {number(found.duration_s)} s, {found.failed:,} failed or refused")
    if found.percentiles:
        plain = ", ".join(f"p{100 * p.q:g} {ms(p.latency_s)}" for p in found.percentiles)
        slowest = f"; the estimate leaves the {found.discarded:,} slowest above itself, 99% sure" if found.discarded else ""
        _line(console, f"plain percentiles: {plain}{slowest}", "dim")
    for reason in found.reasons:
        _line(console, f"! {reason}", "yellow")
    _line(console, "MLPerf's rules for this scenario, run by Headway: no MLPerf result, which only LoadGen and a review can give.", "dim")


def print_audit(console: Console, found: Sequence[Audited]) -> None:
    """A line for each test with its verdict, and its sentence."""
    table = Table(box=box.SIMPLE_HEAD, header_style="dim", pad_edge=False, padding=(0, 1))
    for head in ("test", "what it shows", "verdict", "numbers"):
        table.add_column(head, overflow="fold")
    for one in found:
        table.add_row(Text(one.test), Text(one.title), Text(one.verdict, _TONES.get(one.verdict, "yellow")), Text(one.reason))
    console.print(table)
    unproven = [one.test for one in found if one.verdict == "unproven"]
    if unproven:
        _line(
            console,
            f"! {', '.join(unproven)}: the figures allow neither verdict; use a quieter machine, or real samples with --data",
            "yellow",
        )


def _line(console: Console, text: str, style: str = "") -> None:
    console.print(Text(text, style))
