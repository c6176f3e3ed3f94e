"""Markdown out of the lines, and the checks of the benchmark's promise; nothing in it is typed by hand."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from capacity import LIMIT
from lines import Line
from models import NAMES
from promises import Check, promises
from saturate import CONNECTIONS
from servers import BOUNDS_S, SERVERS

Cell = Callable[[list[Line]], str]


def all_tables(lines: list[Line]) -> str:
    """Checks first, then a table a stage."""
    parts = [_checks(promises(lines))]
    for model in NAMES:
        parts += [_capacity(lines, model), _closed(lines, model), _lone(lines, model)]
    parts += [_idle(lines), _frontend(lines), _overload(lines), _stop(lines), _swap(lines), _machine(lines)]
    return "\n\n".join(part for part in parts if part)


def of(lines: list[Line], stage: str, **wanted: Any) -> list[Line]:
    """Lines of a stage that measured something, with these values."""
    return [
        line
        for line in lines
        if line["stage"] == stage and "reason" not in line and all(line.get(key) == value for key, value in wanted.items())
    ]


def table(head: Sequence[str], rows: Iterable[Sequence[str]], title: str) -> str:
    """A markdown table under a heading; nothing when it has no rows."""
    body = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([f"### {title}", "", "| " + " | ".join(head) + " |", "|" + " --- |" * len(head), *body]) if body else ""


def spread(values: Sequence[float], scale: float = 1.0, digits: int = 3) -> str:
    """``median [lowest, highest]``; the median alone when there is but one."""
    if not values:
        return "-"
    middle, low, high = (number(scale * value, digits) for value in (statistics.median(values), min(values), max(values)))
    return middle if len(values) == 1 else f"{middle} [{low}, {high}]"


def number(value: float, digits: int = 3) -> str:
    """A figure with so many digits and no exponent."""
    return f"{value:,.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:.{digits}g}"


def _checks(found: list[Check]) -> str:
    return table(("check", "must hold", "measured", ""), [(one.name, one.wanted, one.measured, one.word) for one in found], "Checks")


def _capacity(lines: list[Line], model: str) -> str:
    names = [
        name
        for name in (LIMIT, *SERVERS)
        if any(line["stage"] == "capacity" and line["model"] == model and line["server"] == name for line in lines)
    ]
    limits = {bound: of(lines, "capacity", model=model, server=LIMIT, bound_s=bound) for bound in BOUNDS_S}
    tops = {bound: statistics.median([line["low_per_s"] for line in rows]) if rows else None for bound, rows in limits.items()}
    rows = []
    for name in names:
        by_bound = {bound: of(lines, "capacity", model=model, server=name, bound_s=bound) for bound in BOUNDS_S}
        every = [line for found in by_bound.values() for line in found]
        if not every:
            rows.append([name, *[""] * 2, "did not run", *[""] * 4])
            continue
        shares = [_share(found, tops[bound]) for bound, found in by_bound.items()]
        cpu = [held["cpu_s"] for line in every if (held := _held(line))]
        memory = [line["resident_bytes"] for line in every if "resident_bytes" in line]
        rows.append(
            [
                name, _version(every), _wire(name), *(_rates(found) for found in by_bound.values()), *shares,
                spread(cpu, 1e6), "-" if not memory else number(max(memory) / 2**20),
            ]
        )  # fmt: skip
    head = [
        "server",
        "version",
        "protocol",
        *(f"p99 <= {bound * 1e3:g} ms [1/s]" for bound in BOUNDS_S),
        *(f"of the limit ({bound * 1e3:g} ms)" for bound in BOUNDS_S),
    ]
    text = table(
        [*head, "CPU a request [us]", "memory [MiB]"], rows, f"Capacity, model {model}: highest rate of which 99% is answered in time"
    )
    simulated = [f"{bound * 1e3:g} ms: {spread([line['simulated_per_s'] for line in found])}/s" for bound, found in limits.items() if found]
    return text + (f"\n\nThe limit by simulation on the bare runtime's curve: {', '.join(simulated)}." if simulated and text else "")


def _rates(found: list[Line]) -> str:
    """Median and range of the rates that held; marked when something else than the server ended a search."""
    marks = [" (generator's limit)" for line in found if line["generator_bound"]] + [
        " (open above)" for line in found if line["open_above"]
    ]
    return spread([line["low_per_s"] for line in found], digits=4) + "".join(sorted(set(marks)))


def _share(found: list[Line], top: float | None) -> str:
    return "-" if not top or not found else f"{statistics.median([line['low_per_s'] for line in found]) / top:.0%}"


def _held(line: Line) -> dict[str, Any] | None:
    """The trial at the highest rate that held."""
    return max((one for one in line["trials"] if one["miss_fraction"] <= 0.01), key=lambda one: one["rate_per_s"], default=None)


def _version(lines: list[Line]) -> str:
    held = lines[-1].get("versions", {})
    return ", ".join(f"{name} {version}" for name, version in held.items() if name != "onnxruntime") or "-"


def _wire(name: str) -> str:
    return SERVERS[name].wire.name if name in SERVERS else "none"


def _grouped(lines: list[Line], stage: str, **wanted: Any) -> dict[str, list[Line]]:
    """Lines by server, in the servers' order; servers without lines are left out."""
    found = {name: of(lines, stage, server=name, **wanted) for name in SERVERS}
    return {name: rows for name, rows in found.items() if rows}


def _lone(lines: list[Line], model: str) -> str:
    rows = [
        (name, spread([line["server_s"] for line in found], 1e3), spread([line["bare_s"] for line in found], 1e3), _added(found))
        for name, found in _grouped(lines, "lone", model=model).items()
    ]
    return table(
        ("server", "latency [ms]", "runtime alone [ms]", "added [ms], 95% interval of the median round"),
        rows,
        f"One request at a time, model {model}",
    )


def _closed(lines: list[Line], model: str) -> str:
    rows = []
    for name, found in _grouped(lines, "saturate", model=model).items():
        by_count = [[line for line in found if line["connections"] == count] for count in CONNECTIONS]
        rows.append(
            [
                name,
                *(f"{spread([line['rate_per_s'] for line in these], digits=4)}" for these in by_count),
                *(spread([line["p99_s"] for line in these], 1e3) for these in by_count),
            ]
        )
    head = [
        "server",
        *(f"{count} connections [1/s]" for count in CONNECTIONS),
        *(f"p99, {count} connections [ms]" for count in CONNECTIONS),
    ]
    return table(head, rows, f"Closed loop by wrk, model {model}")


def _added(found: list[Line]) -> str:
    middle = sorted(found, key=lambda line: line["added_s"])[len(found) // 2]
    return "{:.3f} [{:.3f}, {:.3f}]".format(*(1e3 * middle[key] for key in ("added_s", "low_s", "high_s")))


def _idle(lines: list[Line]) -> str:
    rows = [
        (name, spread([line["cores"] for line in found], digits=2), spread([line["resident_bytes"] for line in found], 2**-20), f"{found[-1]['processes']}",
         spread([line["ready_s"] for line in found], digits=2))
        for name, found in _grouped(lines, "idle").items()
    ]  # fmt: skip
    return table(("server", "cores used without traffic", "memory [MiB]", "processes", "first right answer after [s]"), rows, "Idle")


def _frontend(lines: list[Line]) -> str:
    rows, pieces = [], ""
    for name, found in _grouped(lines, "frontend").items():
        for load in dict.fromkeys(line["load"] for line in found if "cpu_s" in line):
            these = [line for line in found if line["load"] == load and "cpu_s" in line]
            rate = spread([line["rate_per_s"] for line in these if "rate_per_s" in line], digits=4) if load == "full" else load
            rows.append(
                (name, _wire(name), rate, spread([line["cpu_s"] for line in these], 1e6), spread([line["p99_s"] for line in these], 1e3))
            )
        profiled = [line for line in found if line.get("pieces")]
        if profiled and not pieces:
            top = list(profiled[-1]["pieces"].items())[:12]
            pieces = (
                f"\n\nOn top of the stack while {name} holds the interpreter's lock: "
                + ", ".join(f"{place} {share:.0%}" for place, share in top)
                + "."
            )
    return table(("server", "protocol", "load", "CPU a request [us]", "p99 [ms]"), rows, "Front end: a model that takes no time") + pieces


def _overload(lines: list[Line]) -> str:
    rows = []
    for name, every in _grouped(lines, "overload").items():
        for pinned in (True, False):
            found = [line for line in every if line["pinned"] == pinned]
            if found:
                rows.append((name, "one" if pinned else "all", *_overloaded(found)))
    head = (
        "server",
        "cores",
        "capacity [1/s]",
        "offered [1/s]",
        "answered in time [1/s]",
        "of capacity [%]",
        "refused [%]",
        "refusal after, p99 [ms]",
    )
    head += ("well again after [s]", "memory grown [%]", "generator late, p99 [ms]")
    return table(head, rows, "Overload: five times the capacity, p99 <= 20 ms")


def _overloaded(found: list[Line]) -> list[str]:
    rates = [spread([line[key] for line in found], digits=4) for key in ("capacity_per_s", "offered_per_s", "goodput_per_s")]
    share = [line["goodput_per_s"] / line["capacity_per_s"] for line in found]
    waits = [line["refusal_p99_s"] for line in found if line["refusal_p99_s"] is not None]
    recovered = [line["recovered_s"] for line in found]
    grown = [line["resident_after_bytes"] / line["resident_before_bytes"] - 1 for line in found]
    return [
        *rates, spread(share, 100), spread([line["refused_share"] for line in found], 100), spread(waits, 1e3),
        "not within the run" if None in recovered else spread(recovered), spread(grown, 100), spread([line["lateness_p99_s"] for line in found], 1e3),
    ]  # fmt: skip


def _stop(lines: list[Line]) -> str:
    rows = []
    for name, found in _grouped(lines, "stop").items():
        counts = [spread([line[key] for line in found]) for key in ("right", "wrong", "refused", "lost", "dropped")]
        ends = [_seconds([line[key] for line in found]) for key in ("exit_s", "port_free_s")]
        rows.append((name, *counts, spread([line["left_processes"] for line in found]), *ends))
    head = (
        "server",
        "right",
        "wrong",
        "refused",
        "lost",
        "dropped after it began to refuse",
        "processes left",
        "exit after [s]",
        "port free after [s]",
    )
    return table(head, rows, "SIGTERM with 32 requests in flight")


def _seconds(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    return "not within 15 s" if len(known) < len(values) else spread(known)


def _swap(lines: list[Line]) -> str:
    rows = [
        (name, *(spread([line[key] for line in found]) for key in ("right", "wrong", "refused", "lost")), f"{sum(len(line['changes']) for line in found)}",
         f"{sum(len(line['failed_changes']) for line in found)}", spread([line["slowest_s"] for line in found], 1e3))
        for name, found in _grouped(lines, "swap").items()
    ]  # fmt: skip
    head = ("server", "right", "wrong", "refused", "lost", "changes", "of them failed", "slowest answer [ms]")
    return table(head, rows, "Canary changes and model swaps with 32 requests in flight")


def _machine(lines: list[Line]) -> str:
    used = [line["environment"] for line in lines if line["stage"] != "environment"]
    here = next((line["environment"] for line in reversed(lines) if line["stage"] == "environment" and line["name"] in used), None)
    if here is None:
        return "Nothing was measured yet."
    trials = [one for line in of(lines, "capacity") for one in line["trials"]]
    quiet = (
        f" Of {len(trials)} trials, {sum(one['steal_fraction'] > 0.02 or one['others_cores'] > 0.06 for one in trials)} were disturbed."
        if trials
        else ""
    )
    packages = ", ".join(
        f"{name} {version}" for name, version in sorted(here["versions"].items()) if name in ("onnxruntime", "onnx_runtime", "numpy")
    )
    return f"Measured on {here['cpu']}, {here['cores']} cores ({', '.join(here['instruction_sets'])}), {here['system']}, Python {here['python']}, {packages}.{quiet}"
