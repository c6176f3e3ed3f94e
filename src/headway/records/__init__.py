"""Frozen data objects and their JSON form. They know nothing of how they were made or what is done with them."""

from headway.records.base import Record, from_json, to_json, to_plain
from headway.records.candidate import Candidate, Census, Effect, Plan, Setting, Step, TensorSpec, Variant
from headway.records.cost import Ceilings, Cost, OperatorCost
from headway.records.errors import (
    BundleError,
    ConfigError,
    DataError,
    HeadwayError,
    InputError,
    MeasurementError,
    MissingPackage,
    ModelError,
    ObjectiveError,
    ObjectiveNotMet,
    RecordError,
    Unsupported,
)
from headway.records.exported import ExpectedThere, Export, ServerPolicy, Verified
from headway.records.journal import Journal, Line, read_journal
from headway.records.latency import LatencyTable, LayerTime
from headway.records.measured import (
    BatchTiming,
    Calibration,
    Capacity,
    Environment,
    Failure,
    FrontEnd,
    GroupQuality,
    GuardResult,
    Interval,
    LoadPoint,
    LoadRun,
    Noise,
    Percentile,
    Prediction,
    Quality,
    Rejection,
    ServiceCurve,
)
from headway.records.objective import Objective, parse_objective, parse_time_s
from headway.records.outcome import (
    Bundle,
    BundledVariant,
    Choice,
    Comparison,
    DataSummary,
    Feasible,
    Frontier,
    FrontierPoint,
    RunFinished,
    RunStarted,
    SourceInspected,
    StageTime,
    Summary,
    Trace,
)
from headway.records.planned import (
    Autoscaling,
    FleetLatency,
    FleetPlan,
    LatencyBudget,
    MachineType,
    Placement,
    PlannedFleet,
    PriceList,
    ReplicaFailure,
)

__all__ = [
    "Autoscaling", "BatchTiming", "Bundle", "BundleError", "BundledVariant", "Calibration", "Candidate", "Capacity", "Ceilings", "Census", "Choice",
    "Comparison", "ConfigError", "Cost", "DataError", "DataSummary", "Effect", "Environment", "ExpectedThere", "Export", "Failure", "Feasible", "FleetLatency", "FleetPlan", "FrontEnd", "Frontier",
    "FrontierPoint", "GroupQuality", "GuardResult", "HeadwayError", "InputError", "Interval", "Journal", "LatencyBudget", "LatencyTable", "LayerTime", "Line", "LoadPoint", "LoadRun",
    "MachineType", "MeasurementError", "MissingPackage", "ModelError", "Noise", "Objective", "ObjectiveError", "ObjectiveNotMet", "OperatorCost",
    "Percentile", "Placement", "Plan", "PlannedFleet", "Prediction", "PriceList", "Quality", "Record", "RecordError", "Rejection", "ReplicaFailure", "RunFinished", "RunStarted",
    "ServerPolicy", "ServiceCurve", "Setting", "SourceInspected", "StageTime", "Step", "Summary", "TensorSpec", "Trace", "Unsupported",
    "Variant", "Verified", "from_json", "parse_objective", "parse_time_s", "read_journal", "to_json", "to_plain",
]  # fmt: skip
