"""Variant, Plan and Candidate: what is run, how it is run, and the pair of them."""

from __future__ import annotations

import msgspec

from headway.records.base import Record

Setting = bool | int | float | str


class TensorSpec(Record, frozen=True, kw_only=True):
    """One input or output: its name, element type (numpy's name) and shape; a free dimension is its name or ``?``."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


class Step(Record, frozen=True, kw_only=True):
    """One technique with its settings; a recipe is a tuple of steps."""

    technique: str
    settings: dict[str, Setting] = msgspec.field(default_factory=dict)

    def __str__(self) -> str:
        named = {True: "{}", False: "no {}"}
        values = (named[value].format(key) if isinstance(value, bool) else str(value) for key, value in sorted(self.settings.items()))
        inside = ",".join(values)
        return f"{self.technique}({inside})" if inside else self.technique


class Effect(Record, frozen=True, kw_only=True):
    """What one step changed, measured: a step that changes nothing says so.

    Attributes:
        nodes_before, nodes_after: number of graph nodes.
        weight_bytes_before, weight_bytes_after: bytes of all initializers [B].
        changed_weights: initializers that are new or have other bytes than before.
        output_error: relative L2 distance of the outputs before and after, on calibration samples; none if not run.
        message: one sentence for people.
    """

    step: str
    nodes_before: int
    nodes_after: int
    weight_bytes_before: int
    weight_bytes_after: int
    changed_weights: int
    output_error: float | None
    did_nothing: bool
    message: str
    duration_s: float = 0.0


class Variant(Record, frozen=True, kw_only=True):
    """One model graph made from a source model by a recipe.

    Attributes:
        name: short, unique within a run, and stable: source and recipe decide it.
        path: the ONNX file, relative to the run folder.
        precision: narrowest arithmetic the graph asks for: float32, bfloat16, float16 or int8.
        origin: how the source became ONNX: ``onnx``, ``torch-dynamo``, ``torch-script``, ``keras``, ``saved-model``.
    """

    name: str
    source: str
    origin: str
    recipe: tuple[Step, ...]
    parent_digest: str
    digest: str
    path: str
    parameters: int
    flop: int
    weight_bytes: int
    file_bytes: int
    precision: str
    effects: tuple[Effect, ...] = ()

    @property
    def kind(self) -> str:
        """The techniques of the recipe without their settings: variants of one kind tend to fail together."""
        return "+".join(step.technique for step in self.recipe)

    @property
    def compressed(self) -> bool:
        """Whether any step may change the answers (folding does not count)."""
        return any(step.technique != "fold" for step in self.recipe)


class Plan(Record, frozen=True, kw_only=True):
    """How a variant is run: only knobs that every runtime honours.

    Attributes:
        runtime: name of a file in ``runtime``.
        device: ``cpu`` or the runtime's name for another device.
        instances: sessions that run at the same time.
        threads: threads inside one session.
        max_batch: largest batch formed.
        max_wait_s: longest deliberate wait for a fuller batch [s]; 0 is greedy.
    """

    runtime: str
    device: str = "cpu"
    instances: int = 1
    threads: int = 1
    max_batch: int = 1
    max_wait_s: float = 0.0

    def __str__(self) -> str:
        wait = f" wait<={self.max_wait_s * 1e3:g}ms" if self.max_wait_s else ""
        return f"{self.runtime} {self.instances}x{self.threads}t batch<={self.max_batch}{wait}"


class Candidate(Record, frozen=True, kw_only=True):
    """A variant (by name) and a plan."""

    variant: str
    plan: Plan

    def __str__(self) -> str:
        return f"{self.variant} | {self.plan}"


class Census(Record, frozen=True, kw_only=True):
    """The graph as a runtime will execute it, after the runtime's own optimizations.

    Attributes:
        shares: part of the FLOP by kernel type: ``integer``, ``bfloat16``, ``float16``, ``float32``; sums to 1.
        kernels: number of executed nodes by kernel name.
        fallbacks: operators that run in a wider type than the graph asked for, and why.
        inserted: layout copies, casts and quantize/dequantize nodes left over, by name.
        sentence: the answer to "why is it not faster?" in one sentence; empty when nothing is lost.
    """

    variant: str
    runtime: str
    shares: dict[str, float]
    kernels: dict[str, int]
    fallbacks: tuple[str, ...] = ()
    inserted: dict[str, int] = msgspec.field(default_factory=dict)
    sentence: str = ""
