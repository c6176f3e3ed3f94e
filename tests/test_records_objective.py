"""The objective's text: what it means, that it survives being written and read, and a clear message for every slip."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.records import Objective, ObjectiveError, parse_objective

BOUNDS = st.fixed_dictionaries(
    {},
    optional={
        "percentile": st.sampled_from([0.5, 0.9, 0.95, 0.99, 0.999]),
        "latency_s": st.floats(1e-6, 100),
        "rate_per_s": st.floats(0.01, 1e6),
        "drop": st.floats(0, 0.99),
        "group_drop": st.floats(0, 0.99),
        "ece": st.floats(0, 0.99),
        "shift_drop": st.floats(0, 0.99),
        "attack_drop": st.floats(0, 0.99),
        "memory_bytes": st.integers(1, 10**12),
        "arrivals": st.sampled_from(["poisson", "constant", "bursty"]),
        "prefer": st.sampled_from(["cores", "memory", "latency", "rate"]),
    },
).filter(
    lambda fields: (
        fields.keys() - {"percentile", "arrivals", "prefer"} and ("rate_per_s" in fields or fields.get("prefer", "rate") == "rate")
    )
)


@given(BOUNDS)
def test_an_objective_survives_its_text_form(fields: dict[str, object]) -> None:
    if "latency_s" not in fields:
        fields.pop("percentile", None)
    objective = Objective(**fields)  # type: ignore[arg-type]
    read = parse_objective(str(objective))
    assert str(read) == str(objective)
    for name in ("memory_bytes", "arrivals", "percentile", "prefer"):
        assert getattr(read, name) == getattr(objective, name)
    for name in ("latency_s", "rate_per_s", "drop", "group_drop", "ece", "shift_drop", "attack_drop"):
        assert getattr(read, name) == (None if getattr(objective, name) is None else pytest.approx(getattr(objective, name), rel=1e-9))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("p99<=20ms, rate>=200/s, drop<=1%", Objective(latency_s=0.02, rate_per_s=200.0, drop=0.01)),
        ("p99.9 < 1.5s", Objective(percentile=0.999, latency_s=1.5)),
        ("p50<=500us,", Objective(percentile=0.5, latency_s=500 * 1e-6)),
        ("drop<=0.01", Objective(drop=0.01)),
        ("drop<=0%, rate>200", Objective(drop=0.0, rate_per_s=200.0)),
        ("group_drop<=3pt, memory<=500MB", Objective(group_drop=0.03, memory_bytes=500_000_000)),
        ("ece<=2%, shift_drop<5pp, attack_drop<=0.1", Objective(ece=0.02, shift_drop=0.05, attack_drop=0.1)),
        ("memory<=1GiB", Objective(memory_bytes=2**30)),
        ("memory<=1.1kB", Objective(memory_bytes=1100)),
        ("rate>=5/s, arrivals=bursty", Objective(rate_per_s=5.0, arrivals="bursty")),
        ("rate>=5/s, prefer=latency", Objective(rate_per_s=5.0, prefer="latency")),
        ("drop<=1%, prefer=rate", Objective(drop=0.01, prefer="rate")),
        ("p90<=1e1 ms", Objective(percentile=0.9, latency_s=0.01)),
    ],
)
def test_what_a_text_means(text: str, expected: Objective) -> None:
    assert parse_objective(text) == expected


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "at least one bound"),
        ("  , ,", "at least one bound"),
        ("arrivals=bursty", "at least one bound"),
        ("prefer=rate", "at least one bound"),
        ("p99<=20ms, prefer=latency", "add rate>=50/s"),
        ("rate>=5/s, prefer=speed", "one of cores, memory, latency, rate, got 'speed'"),
        ("rate>=5/s, prefer<=cores", "write prefer=cores"),
        ("fast", "NAME<=VALUE"),
        ("p99", "NAME<=VALUE"),
        ("p99<=", "NAME<=VALUE"),
        ("<=20ms", "NAME<=VALUE"),
        ("p99≤20ms", "NAME<=VALUE"),
        ("p99<=20ms; rate>=10/s", "number with a unit"),
        ("p99<=20", "needs a unit"),
        ("p99<=20 minutes", "needs a unit"),
        ("p99<=20MS", "needs a unit"),
        ("p99>=20ms", "'<='"),
        ("p99=20ms", "'<='"),
        ("rate<=200/s", "'>='"),
        ("rate>=200/min", "rate>=200/s"),
        ("rate>=fast", "number with a unit"),
        ("rate>=-5/s", "number with a unit"),
        ("rate>=0/s", "above zero"),
        ("rate>=1e999/s", "finite"),
        ("p99<=0ms", "above zero"),
        ("p99<=1e999s", "finite"),
        ("memory<=1e999GB", "finite"),
        ("memory<=0.1B", "at least one byte"),
        ("memory<=500", "needs a unit"),
        ("memory>=500MB", "'<='"),
        ("drop<=100%", "below 100%"),
        ("drop<=1ms", "percent points"),
        ("drop>=1%", "'<='"),
        ("group_drop<=3", "below 100%"),
        ("ece<=3", "below 100%"),
        ("ece>=1%", "'<='"),
        ("shift_drop<=1ms", "percent points"),
        ("attack_drop<=-1%", "number with a unit"),
        ("ece<=1%, ece<=2%", "twice"),
        ("arrivals<=poisson, rate>=1/s", "arrivals=poisson"),
        ("p99<=20ms, p95<=10ms", "twice"),
        ("rate>=1/s, rate>=2/s", "twice"),
        ("p100<=20ms", "between p0 and p100"),
        ("p0<=20ms", "between p0 and p100"),
        ("rte>=200/s", "did you mean 'rate'"),
        ("dorp<=1%", "did you mean 'drop'"),
        ("shiftdrop<=1%", "did you mean 'shift_drop'"),
        ("atack_drop<=1%", "did you mean 'attack_drop'"),
        ("memmory<=1GB", "did you mean 'memory'"),
        ("accuracy>=0.9", "known are"),
    ],
)
def test_every_slip_is_told(text: str, told: str) -> None:
    with pytest.raises(ObjectiveError) as caught:
        parse_objective(text)
    assert told in str(caught.value)
    assert str(caught.value).startswith("objective: ")


@given(BOUNDS)
def test_reading_and_writing_again_changes_nothing(fields: dict[str, object]) -> None:
    text = str(Objective(**fields))  # type: ignore[arg-type]
    assert str(parse_objective(text)) == text


def test_guards_asked_for() -> None:
    assert parse_objective("drop<=1%").guards == ()
    assert parse_objective("attack_drop<=1%, ece<=1%, group_drop<=1%").guards == ("ece", "attack_drop")


@given(st.text(max_size=40))
def test_no_text_breaks_the_parser(text: str) -> None:
    try:
        parse_objective(text)
    except ObjectiveError as error:
        assert "objective" in str(error)
