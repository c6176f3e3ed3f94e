"""Arrivals and an open-loop generator: requests are sent when they are due, whatever the target does.

This room knows ids, times and a ``submit`` callable, or a URL and bytes. It does not know models, answers or accuracy; limiting it
so keeps it reusable (the lesson of MLPerf LoadGen's README). Latency is counted from the moment a request was **due**.
"""

from headway.load.arriving import arrival_times, arrivals
from headway.load.connection import SYSTEM, Answer, Trust
from headway.load.find import OPEN_STEP, Bracket, find_capacity, held, trial_s
from headway.load.generator import Completion, RawLoad, run_open_loop
from headway.load.http import run_http
from headway.load.live import Live, Seen
from headway.load.payload import infer_payload, parse_infer_response
from headway.load.several import run_http_by
from headway.load.summary import summarise

__all__ = [
    "OPEN_STEP",
    "SYSTEM",
    "Answer",
    "Bracket",
    "Completion",
    "Live",
    "RawLoad",
    "Seen",
    "Trust",
    "arrival_times",
    "arrivals",
    "find_capacity",
    "held",
    "infer_payload",
    "parse_infer_response",
    "run_http",
    "run_http_by",
    "run_open_loop",
    "summarise",
    "trial_s",
]
