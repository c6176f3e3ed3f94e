"""An export: one variant of a bundle as another server takes it, and what to expect of it there."""

from __future__ import annotations

from headway.records.base import Record
from headway.records.candidate import Plan, TensorSpec
from headway.records.objective import Objective
from headway.records.planned import Autoscaling


class ServerPolicy(Record, frozen=True, kw_only=True):
    """How the server that an export is for forms batches, and what it takes beside the model: enough to simulate it.

    Attributes:
        plan: runtime, instances, threads, largest batch and deliberate wait there.
        refuses: whether it refuses what cannot meet its deadline, as Headway's server does; most queue without end.
        front_s: CPU time of a request beside the model [s]; none: not known, and nothing is predicted.
        front_steals: whether that time comes out of the cores that run the model.
        own_front_s: CPU time of a request, one of many, at Headway's own server when ``front_s`` was measured: a run that measured it, too, tells by it how
            much slower its machine is [s]; none: ``front_s`` is taken as it is.
        basis: where ``front_s`` comes from, in a sentence.
    """

    plan: Plan
    refuses: bool
    front_s: float | None
    front_steals: bool
    basis: str
    own_front_s: float | None = None


class ExpectedThere(Record, frozen=True, kw_only=True):
    """What simulation expects of one replica of an export on a machine like the one measured; never a measurement.

    Attributes:
        rate_per_s: SLO capacity: the largest rate at which the objective's percentile holds [1/s].
        low_per_s, high_per_s: between which it lies, as far as the samples of the curve tell [1/s].
        own_per_s: of the bundle's own server, simulated in the same way, where its front end was measured [1/s].
    """

    rate_per_s: float
    low_per_s: float
    high_per_s: float
    own_per_s: float | None = None


class Export(Record, frozen=True, kw_only=True):
    """The manifest of an export folder (``export.json``), beside the files that the other server reads.

    Attributes:
        target: which server: a file in ``deploy/targets``.
        model: the model's name there; ``variant`` of the bundle; ``file`` the ONNX file in this folder, empty where none is in it.
        files: SHA-256 of every other file of the folder, by its path.
        inputs, outputs: of the model.
        golden: file with ``input/NAME`` and ``output/NAME``; ``tolerance`` is the largest relative difference that counts as the same.
        start: commands that start it, from inside the folder.
        scaling: settings of an autoscaler, from ``plan``; none: not planned.
        expected: none: there were no measurements to simulate from, or the server's own share is not known; ``notes`` say which.
    """

    format: int
    target: str
    created: str
    version: str
    model: str
    variant: str
    file: str
    files: dict[str, str]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    golden: str
    tolerance: float
    objective: Objective
    policy: ServerPolicy
    start: tuple[str, ...]
    scaling: Autoscaling | None = None
    expected: ExpectedThere | None = None
    notes: tuple[str, ...] = ()


class Verified(Record, frozen=True, kw_only=True):
    """The answer of ``headway verify``: what was compared, and how far it lay apart.

    Attributes:
        model_difference: largest relative difference of the folder's ONNX file from the golden set, run here; none: no such file.
        server_difference: of the answers of the running server; none: none was asked.
        asked: the server that was asked, in words; or why none was.
    """

    target: str
    files: int
    model_difference: float | None
    server_difference: float | None
    asked: str
    tolerance: float
