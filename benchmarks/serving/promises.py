"""What the benchmark must show, each with what was measured and whether that holds; ``unproven`` where nothing was measured."""

from __future__ import annotations

import statistics
from typing import Any, NamedTuple

from capacity import LIMIT
from lines import Line
from servers import BOUNDS_S, SERVERS

HEADWAY = ("headway", "headway-binary")
PYTHON = tuple(name for name, server in SERVERS.items() if server.python)
LIMIT_SHARE, OVER_PYTHON, OVER_NATIVE, TINY_OVER_TRITON, TINY_OVER_FASTAPI = 0.9, 3.0, 1.3, 3.0, 10.0
ADDED_S, IDLE_CORES, FRONT_END_S = 0.4e-3, 0.01, 20e-6
GOODPUT_SHARE, REFUSAL_S, FLAT, RECOVERED_S, PORT_S = 0.9, 0.010, 0.1, 1.0, 10.0


class Check(NamedTuple):
    """One promise."""

    name: str
    wanted: str
    measured: str
    word: str


def promises(lines: list[Line]) -> list[Check]:
    """Every check."""
    seen = [line for line in lines if "reason" not in line]
    return [*_capacities(seen), *_tiny(seen), *_lone(seen), _idle(seen), _front_end(seen), *_overload(seen), _stop(seen), _swap(seen)]


def capacity(lines: list[Line], model: str, server: str, bound_s: float) -> float | None:
    """Median of the rates that held, over rounds [1/s]."""
    found = [line["low_per_s"] for line in lines if _is(line, "capacity", model=model, server=server, bound_s=bound_s)]
    return statistics.median(found) if found else None


def _is(line: Line, stage: str, **wanted: Any) -> bool:
    return line["stage"] == stage and all(line.get(key) == value for key, value in wanted.items())


def _capacities(lines: list[Line]) -> list[Check]:
    found = []
    for bound in BOUNDS_S:
        title = f"mlp, p99 <= {bound * 1e3:g} ms"
        ours, limit = _best(lines, "mlp", HEADWAY, bound), capacity(lines, "mlp", LIMIT, bound)
        share = _ratio(f"{title}: of the limit", ours, limit, LIMIT_SHARE, f">= {LIMIT_SHARE:.0%} of the limit")
        simulated = [line["simulated_per_s"] for line in lines if _is(line, "capacity", model="mlp", server=LIMIT, bound_s=bound)]
        beside = (
            f"; of the simulated {statistics.median(simulated):,.0f}/s: {ours / statistics.median(simulated):.2f}"
            if simulated and ours
            else ""
        )
        found.append(share._replace(measured=share.measured + beside))
        for title_of, names, times in (("best server in Python", PYTHON, OVER_PYTHON), ("Triton", ("triton", "triton-binary"), OVER_NATIVE),
                                       ("mosec", ("mosec", "mosec-msgpack"), OVER_NATIVE)):  # fmt: skip
            theirs = _best(lines, "mlp", names, bound)
            found.append(_ratio(f"{title}: over {title_of}", ours, theirs, times, f">= {times:g} times"))
        json_ours, json_theirs = capacity(lines, "mlp", "headway", bound), _best(lines, "mlp", ("triton", "mosec"), bound)
        found.append(
            _ratio(f"{title}: JSON over JSON of Triton and mosec", json_ours, json_theirs, OVER_NATIVE, f">= {OVER_NATIVE:g} times")
        )
    return found


def _tiny(lines: list[Line]) -> list[Check]:
    found = []
    for bound in BOUNDS_S:
        ours = _best(lines, "tiny", HEADWAY, bound)
        for title, names, times in (
            ("Triton", ("triton", "triton-binary"), TINY_OVER_TRITON),
            ("FastAPI", ("fastapi",), TINY_OVER_FASTAPI),
        ):
            theirs = _best(lines, "tiny", names, bound)
            found.append(_ratio(f"tiny, p99 <= {bound * 1e3:g} ms: over {title}", ours, theirs, times, f">= {times:g} times"))
    return found


def _best(lines: list[Line], model: str, names: tuple[str, ...], bound_s: float) -> float | None:
    known = [rate for name in names if (rate := capacity(lines, model, name, bound_s)) is not None]
    return max(known, default=None)


def _ratio(name: str, ours: float | None, theirs: float | None, wanted: float, words: str) -> Check:
    if ours is None or theirs is None:
        return Check(name, words, "-", "unproven")
    if theirs == 0:
        return Check(name, words, f"{ours:,.0f}/s, the other held no rate", "holds")
    return Check(name, words, f"{ours / theirs:.2f} ({ours:,.0f}/s, {theirs:,.0f}/s)", _word(ours / theirs >= wanted))


def _word(holds: bool) -> str:
    return "holds" if holds else "fails"


def _lone(lines: list[Line]) -> list[Check]:
    found = []
    for name in HEADWAY:
        these = sorted((line for line in lines if _is(line, "lone", model="mlp", server=name)), key=lambda line: line["added_s"])
        middle = these[len(these) // 2] if these else None
        told = (
            "-" if middle is None else "{:.3f} ms [{:.3f}, {:.3f}]".format(*(1e3 * middle[key] for key in ("added_s", "low_s", "high_s")))
        )
        found.append(
            Check(
                f"one request at a time, {name}",
                "<= 0.4 ms over the runtime alone",
                told,
                "unproven" if middle is None else _word(middle["added_s"] <= ADDED_S),
            )
        )
    return found


def _idle(lines: list[Line]) -> Check:
    cores = [line["cores"] for line in lines if line["stage"] == "idle" and line["server"] in HEADWAY]
    return Check("idle", "< 0.01 core", f"{max(cores):.4f}" if cores else "-", _word(max(cores) < IDLE_CORES) if cores else "unproven")


def _front_end(lines: list[Line]) -> Check:
    cpu = [line["cpu_s"] for line in lines if _is(line, "frontend", server="headway-binary", load="full")]
    told = f"{1e6 * statistics.median(cpu):.1f} us" if cpu else "-"
    return Check(
        "front end, binary extension, 32 connections",
        "<= 20 us CPU a request",
        told,
        _word(statistics.median(cpu) <= FRONT_END_S) if cpu else "unproven",
    )


def _overload(lines: list[Line]) -> list[Check]:
    found = []
    for pinned, place in ((True, "one core"), (False, "all cores")):
        these = [
            line
            for line in lines
            if line["stage"] == "overload" and line["server"] in HEADWAY and line["pinned"] == pinned and line["duration_s"] >= 60
        ]
        found += _overloaded(f"5x overload for 60 s, {place}", these)
    return found


def _overloaded(title: str, these: list[Line]) -> list[Check]:
    if not these:
        return [Check(title, "goodput >= 90%, refusals p99 <= 10 ms, memory flat, well again <= 1 s", "-", "unproven")]
    goodput = statistics.median([line["goodput_per_s"] / line["capacity_per_s"] for line in these])
    refusal = statistics.median([line["refusal_p99_s"] or 0.0 for line in these])
    grown = max(line["resident_after_bytes"] / line["resident_halfway_bytes"] - 1 for line in these)
    recovered = [line["recovered_s"] for line in these]
    slowest = None if None in recovered else max(recovered)
    told = "not within the run" if slowest is None else f"{slowest:.2f} s"
    return [
        Check(f"{title}: goodput", ">= 90% of capacity", f"{goodput:.0%}", _word(goodput >= GOODPUT_SHARE)),
        Check(f"{title}: refusals", "p99 <= 10 ms from the due time", f"{1e3 * refusal:.1f} ms", _word(refusal <= REFUSAL_S)),
        Check(f"{title}: memory", "flat: second half <= 10%", f"{grown:+.1%}", _word(grown <= FLAT)),
        Check(f"{title}: well again", "<= 1 s", told, _word(slowest is not None and slowest <= RECOVERED_S)),
    ]


def _stop(lines: list[Line]) -> Check:
    these = [line for line in lines if line["stage"] == "stop" and line["server"] in HEADWAY]
    wanted = "none lost or wrong, no process left, port free within 10 s"
    if not these:
        return Check("SIGTERM, 32 in flight", wanted, "-", "unproven")
    lost, wrong, left = (sum(line[key] for line in these) for key in ("lost", "wrong", "left_processes"))
    other = sum(sum(line["other"].values()) for line in these)
    ports = [line["port_free_s"] for line in these]
    free = None not in ports and max(ports) <= PORT_S
    told = f"{len(these)} runs: {lost} lost, {wrong} wrong, {other} other, {left} processes left, port free after {'-' if None in ports else f'{max(ports):.1f} s'}"
    return Check("SIGTERM, 32 in flight", wanted, told, _word(not lost and not wrong and not other and not left and free))


def _swap(lines: list[Line]) -> Check:
    these = [line for line in lines if line["stage"] == "swap"]
    if not these:
        return Check("swap and canary, 32 in flight", "none lost or wrong", "-", "unproven")
    bad = {key: sum(line[key] for line in these) for key in ("lost", "wrong", "refused")}
    bad["other"] = sum(sum(line["other"].values()) for line in these)
    bad["changes failed"] = sum(len(line["failed_changes"]) for line in these)
    told = f"{len(these)} runs, {sum(line['right'] for line in these):,} right; " + ", ".join(
        f"{count} {name}" for name, count in bad.items()
    )
    return Check("swap and canary, 32 in flight", "none lost or wrong", told, _word(not any(bad.values())))
