"""What a plan will do, without running it: roofline, queueing laws, and a simulator that runs the real batching policy.

This room knows records and virtual time. It measures nothing and knows no runtime.
"""

from headway.predict.capacity import predict_capacity
from headway.predict.gains import Gain, explain, gains
from headway.predict.interval import predict_engine, predict_plan
from headway.predict.kernel import ROUTERS
from headway.predict.queueing import (
    batch_mean_response_s,
    capacity_per_s,
    crossover_batch,
    kingman_wait_s,
    little_in_flight,
    md1_mean_wait_s,
    mm1_mean_wait_s,
    mm1_response_percentile_s,
    sakasegawa_wait_s,
    service_bound_s,
)
from headway.predict.roofline import OperatorBound, Roofline, roofline
from headway.predict.simulate import FleetRun, Outage, simulate, simulate_fleet

__all__ = [
    "ROUTERS",
    "FleetRun",
    "Gain",
    "OperatorBound",
    "Outage",
    "Roofline",
    "batch_mean_response_s",
    "capacity_per_s",
    "crossover_batch",
    "explain",
    "gains",
    "kingman_wait_s",
    "little_in_flight",
    "md1_mean_wait_s",
    "mm1_mean_wait_s",
    "mm1_response_percentile_s",
    "predict_capacity",
    "predict_engine",
    "predict_plan",
    "roofline",
    "sakasegawa_wait_s",
    "service_bound_s",
    "simulate",
    "simulate_fleet",
]
