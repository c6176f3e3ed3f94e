"""A realistic run folder for the tests of report and track, and proof that it is one."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from headway.records import (
    BatchTiming,
    Candidate,
    Capacity,
    Ceilings,
    Census,
    Choice,
    Comparison,
    Cost,
    DataSummary,
    Effect,
    Environment,
    Failure,
    Frontier,
    FrontierPoint,
    GroupQuality,
    Interval,
    Journal,
    LoadPoint,
    LoadRun,
    OperatorCost,
    Percentile,
    Plan,
    Prediction,
    Quality,
    Record,
    Rejection,
    RunFinished,
    RunStarted,
    ServiceCurve,
    SourceInspected,
    StageTime,
    Step,
    Summary,
    TensorSpec,
    Variant,
    parse_objective,
    read_journal,
)

OBJECTIVE = parse_objective("p99<=20ms, rate>=200/s, drop<=1%, group_drop<=3%")
ENVIRONMENT = Environment(
    cpu="Intel Xeon (Sapphire Rapids) @ 2.10 GHz",
    instruction_sets=("AVX2", "AVX512", "AVX512_VNNI", "AMX_INT8", "AMX_BF16"),
    cores=2,
    memory_bytes=8 * 2**30,
    system="Linux 6.1",
    python="3.11.7",
    versions={"onnxruntime": "1.32.0", "openvino": "2026.4.0"},
    noise_ratio=1.07,
    steal_fraction=0.004,
)
NAIVE = Candidate(variant="lite0", plan=Plan(runtime="onnx_runtime", threads=2))
UNCOMPRESSED = Candidate(variant="lite0/fold", plan=Plan(runtime="openvino", instances=2, threads=1, max_batch=4))
CHOSEN = Candidate(variant="lite0/fold+static-u8s8", plan=Plan(runtime="openvino", instances=2, threads=1, max_batch=4))
SPEED = {
    ("lite0", "onnx_runtime"): (0.0021, 0.0113),
    ("lite0/fold", "onnx_runtime"): (0.0016, 0.0094),
    ("lite0/fold", "openvino"): (0.0011, 0.0071),
    ("lite0/fold+bf16", "openvino"): (0.0009, 0.0039),
    ("lite0/fold+static-u8s8", "onnx_runtime"): (0.0013, 0.0049),
    ("lite0/fold+static-u8s8", "openvino"): (0.0007, 0.0027),
}
DROPS = {"lite0": 0.0, "lite0/fold": 0.0, "lite0/fold+bf16": 0.0005, "lite0/fold+static-u8s8": 0.004, "lite0/fold+dynamic": 0.031}


def load_point(rate: float, capacity: float, base_s: float, *, target: str = "in-process", seed: int = 0) -> LoadPoint:
    """A plausible point: latency grows as the rate nears the capacity and explodes beyond it."""
    load = rate / capacity
    queue = 0.35 / (1 - load) if load < 0.97 else 14 + 60 * (load - 0.9)
    p50 = base_s * (1 + 0.3 * queue)
    percentiles = tuple(
        Percentile(q=q, latency_s=p50 * factor, low_s=p50 * factor * 0.95, high_s=p50 * factor * (1.03 + 0.3 * (q > 0.98)))
        for q, factor in ((0.5, 1.0), (0.9, 1.5), (0.95, 1.8), (0.99, 2.4))
    )
    held = percentiles[-1].high_s <= 0.020
    return LoadPoint(
        target=target,
        arrivals="poisson",
        offered_rate_per_s=rate,
        achieved_rate_per_s=min(rate, capacity),
        goodput_per_s=min(rate, capacity) * 0.99,
        duration_s=10.0,
        sent=int(rate * 10),
        completed=int(rate * 10),
        failed=0,
        refused=0,
        percentiles=percentiles,
        mean_s=p50 * 1.1,
        naive_p99_s=percentiles[-1].latency_s * 0.8,
        lateness_p99_s=2e-4,
        in_flight_mean=rate * p50,
        little_ratio=1.003,
        miss_fraction=0.002 if held else 0.21,
        mean_batch=1.7,
        verdict="held" if held else "missed",
        seed=seed,
        steal_fraction=0.002,
    )


def curve(variant: str, runtime: str, instances: int, threads: int) -> ServiceCurve:
    """Raw service times around a line, seeded."""
    rng = np.random.default_rng(abs(hash((len(variant), len(runtime), instances))) % 1000)
    tau0, alpha = SPEED[variant, runtime]
    factor = 1.0 if threads == 1 else 0.62
    timings = tuple(
        BatchTiming(batch=b, service_s=tuple(float(x) for x in factor * (tau0 + alpha * b) * (1 + rng.gamma(1.3, 0.03, 40))))
        for b in (1, 2, 4, 8, 16)
    )
    return ServiceCurve(
        variant=variant,
        runtime=runtime,
        device="cpu",
        instances=instances,
        threads=threads,
        timings=timings,
        tau0_s=tau0 * factor,
        alpha_s=alpha * factor * 1.03,
        peak_bytes=210_000_000,
        unstable=variant == "lite0/fold+bf16" and threads == 2,
    )


def variant(name: str, *steps: Step, precision: str = "float32", shrink: float = 1.0, effects: tuple[Effect, ...] = ()) -> Variant:
    """A variant of EfficientNet-Lite0."""
    return Variant(
        name=name,
        source="lite0",
        origin="torch-dynamo",
        recipe=steps,
        parent_digest="ab" * 32,
        digest="cd" * 32,
        path=f"variants/{name}.onnx",
        parameters=4_652_008,
        flop=797_000_000,
        weight_bytes=int(18_600_000 * shrink),
        file_bytes=int(18_700_000 * shrink),
        precision=precision,
        effects=effects,
    )


def effect(step: str, before: int, after: int, *, weights: int, error: float | None, message: str) -> Effect:
    """What a step did."""
    return Effect(
        step=step,
        nodes_before=before,
        nodes_after=after,
        weight_bytes_before=18_600_000,
        weight_bytes_after=weights,
        changed_weights=0 if before == after else 98,
        output_error=error,
        did_nothing=before == after and weights == 18_600_000,
        message=message,
        duration_s=1.2,
    )


def quality(name: str, runtime: str, part: str, n: int) -> Quality:
    """Accuracy paired with the parent."""
    drop, parent = DROPS[name], 0.7482
    spread = 0.35 / n**0.5 if drop else 0.0
    bound = "proven" if drop + spread <= 0.01 else "held" if drop <= 0.01 else "violated"
    group = GroupQuality(
        group="night",
        n=n // 8,
        value=parent - drop - 0.012,
        parent_value=parent,
        drop=Interval(value=drop * 3, low=drop * 3 - 0.02, high=drop * 3 + 0.021),
    )
    return Quality(
        variant=name,
        runtime=runtime,
        part=part,
        metric="accuracy",
        higher_is_better=True,
        n=n,
        value=Interval(value=parent - drop, low=parent - drop - 0.019, high=parent - drop + 0.018),
        parent_value=parent,
        drop=Interval(value=drop, low=drop - spread, high=drop + spread),
        right_to_wrong=round(drop * n * 2.2),
        wrong_to_right=round(drop * n * 1.2),
        agreement=1 - drop * 3,
        groups=(group,),
        verdict=bound,
    )


def started(**changes: object) -> RunStarted:
    """The first line of the run."""
    data = DataSummary(
        source="val.npz",
        n=4000,
        calibration=512,
        selection=1500,
        report=1988,
        train=0,
        labelled=True,
        groups=("day", "night"),
        metric="accuracy",
        digest="ef" * 32,
    )
    fields: dict[str, object] = {
        "version": "0.1.0",
        "name": "demo-vision",
        "sources": {"lite0": "lite0.onnx"},
        "data": data,
        "objective": OBJECTIVE,
        "config": {"budget": "10m", "techniques": ["fold", "quantize_static"], "seed": 0, "slo": str(OBJECTIVE)},
        "environment": ENVIRONMENT,
        "seed": 0,
    }
    return RunStarted(**{**fields, **changes})  # type: ignore[arg-type]


def inspected() -> SourceInspected:
    """The estimate stage's record."""
    operators = [
        OperatorCost(
            node=f"/blocks.{i}/conv_pw/Conv",
            op_type="Conv",
            flop=41_000_000 - i * 1_500_000,
            weight_bytes=120_000 + i * 9000,
            activation_bytes=3_000_000 - i * 90_000,
        )
        for i in range(22)
    ]
    operators.append(OperatorCost(node="/classifier/Gemm", op_type="Gemm", flop=2_560_000, weight_bytes=5_124_000, activation_bytes=9_120))
    cost = Cost(
        parameters=4_652_008,
        flop=797_000_000,
        weight_bytes=18_600_000,
        activation_bytes=54_000_000,
        opset=18,
        inputs=(TensorSpec(name="image", dtype="float32", shape=("batch", 3, 224, 224)),),
        outputs=(TensorSpec(name="logits", dtype="float32", shape=("batch", 1000)),),
        operators=tuple(operators),
        uncounted=("NonMaxSuppression",),
    )
    ceilings = Ceilings(
        flop_per_s={"float32": 1.9e11, "int8": 1.1e12, "bfloat16": 8.2e11},
        flop_per_s_one_thread={"float32": 1.0e11, "int8": 5.6e11, "bfloat16": 4.2e11},
        bytes_per_s=2.4e10,
        bytes_per_s_one_thread=1.3e10,
        overhead_s=1.8e-5,
    )
    return SourceInspected(
        source="lite0",
        digest="ab" * 32,
        cost=cost,
        ceilings=ceilings,
        notes=("Weight-only quantization will not help: the model is above the ridge.",),
    )


def compressed_records() -> list[Record]:
    """Variants, census and quality on the selection part."""
    fold, static = Step(technique="fold"), Step(technique="quantize_static", settings={"calibrator": "mse", "per_channel": True})
    folded = effect("fold", 214, 97, weights=18_600_000, error=2.1e-7, message="49 batch norms folded into convolutions; 117 nodes fewer")
    nothing = effect("fold", 97, 97, weights=18_600_000, error=0.0, message="this step did nothing: the graph was already folded")
    int8 = effect("quantize_static", 97, 393, weights=4_800_000, error=0.061, message="50 of 50 convolutions in int8, weights per channel")
    lines: list[Record] = [
        variant("lite0"),
        variant("lite0/fold", fold, effects=(folded,)),
        variant(
            "lite0/fold+bf16", fold, Step(technique="precision", settings={"type": "bfloat16"}), precision="bfloat16", effects=(nothing,)
        ),
        variant("lite0/fold+static-u8s8", fold, static, precision="int8", shrink=0.26, effects=(folded, int8)),
        variant("lite0/fold+dynamic", fold, Step(technique="quantize_dynamic"), precision="int8", shrink=0.74, effects=(folded,)),
        Census(variant="lite0/fold", runtime="openvino", shares={"float32": 1.0}, kernels={"Convolution": 49, "FullyConnected": 1}),
        Census(
            variant="lite0/fold+static-u8s8",
            runtime="onnx_runtime",
            shares={"integer": 0.81, "float32": 0.19},
            kernels={"QLinearConv": 41, "Conv": 9},
            fallbacks=("Conv: depthwise 5x5 has no integer kernel",),
            inserted={"DequantizeLinear": 18, "QuantizeLinear": 18},
            sentence="19% of the work stays in float32 and 36 conversions stand around it.",
        ),
        Census(
            variant="lite0/fold+static-u8s8",
            runtime="openvino",
            shares={"integer": 0.97, "float32": 0.03},
            kernels={"Convolution_i8": 49, "FullyConnected": 1},
        ),
    ]
    lines += [quality(name, runtime, "selection", 1500) for name, runtime in SPEED]
    lines.append(quality("lite0/fold+dynamic", "onnx_runtime", "selection", 1500))
    return lines


def measured_records() -> list[Record]:
    """Curves, predictions, loads and what was dropped on the way."""
    lines: list[Record] = [curve(name, runtime, 2, 1) for name, runtime in SPEED]
    lines += [curve(name, runtime, 1, 2) for name, runtime in SPEED]
    lines.append(
        Failure(
            stage="curve",
            variant="lite0/fold+bf16",
            plan=Plan(runtime="onnx_runtime"),
            reason="onnx_runtime has no bfloat16 kernels on this CPU",
        )
    )
    lines.append(
        Rejection(
            stage="screen",
            variant="lite0/fold+dynamic",
            plan=None,
            reason="drop 3.1 points is above the bound of 1 point with 95% confidence",
            figures={"drop": 0.031},
        )
    )
    for (name, runtime), (tau0, alpha) in SPEED.items():
        candidate = Candidate(variant=name, plan=Plan(runtime=runtime, instances=2, threads=1, max_batch=4))
        capacity = 2 * 4 / (tau0 + 4 * alpha)
        lines.append(
            Prediction(
                candidate=candidate, capacity_per_s=capacity * 0.82, rate_per_s=200.0, latency_s=(tau0 + alpha) * 2.2, percentile=0.99
            )
        )
        for rate in (0.3 * capacity, 0.6 * capacity, 200.0, 0.8 * capacity, 1.05 * capacity):
            if rate <= 1.05 * capacity:
                lines.append(LoadRun(candidate=candidate, role="candidate", round=0, point=load_point(rate, capacity, tau0 + alpha)))
        lines.append(
            Capacity(
                candidate=candidate,
                role="candidate",
                target="in-process",
                rate_per_s=capacity * 0.78,
                low_per_s=capacity * 0.74,
                high_per_s=capacity * 0.81,
            )
        )
        if candidate != CHOSEN:
            lines.append(
                Rejection(
                    stage="choose",
                    variant=name,
                    plan=candidate.plan,
                    reason=f"holds {capacity * 0.78:.0f}/s, the choice holds more on as many cores",
                    figures={"rate_per_s": capacity * 0.78},
                )
            )
    for wait in (0.0, 0.002, 0.004):
        plan = Plan(runtime="openvino", instances=1, threads=2, max_batch=16, max_wait_s=wait)
        lines.append(
            Prediction(
                candidate=Candidate(variant="lite0/fold+static-u8s8", plan=plan),
                capacity_per_s=390.0 + 9e3 * wait,
                rate_per_s=200.0,
                latency_s=0.011 + wait,
                percentile=0.99,
            )
        )
    return lines


def comparison() -> Comparison:
    """Naive, uncompressed and chosen over HTTP in three rounds."""
    roles = {"naive": (78.0, 0.0136), "uncompressed": (205.0, 0.0085), "chosen": (520.0, 0.0036)}
    points = {
        role: tuple(load_point(60.0, capacity, base * (1 + 0.02 * i), target="http", seed=i) for i in range(3))
        for role, (capacity, base) in roles.items()
    }
    return Comparison(
        rate_per_s=60.0,
        points=points,
        capacity_per_s={role: Interval(value=c * 0.8, low=c * 0.76, high=c * 0.83) for role, (c, _) in roles.items()},
        capacity_ratio={"naive": Interval(value=6.67, low=6.2, high=7.1), "uncompressed": Interval(value=2.54, low=2.4, high=2.7)},
        latency_ratio={"naive": Interval(value=8.4, low=7.7, high=9.0), "uncompressed": Interval(value=2.9, low=2.7, high=3.1)},
        notes=("Compared at 60/s: the naive deployment does not hold 200/s.",),
    )


def frontier() -> Frontier:
    """Two points nobody beats."""
    return Frontier(
        points=(
            FrontierPoint(
                candidate=CHOSEN, latency_s=0.0121, rate_per_s=541.0, drop=0.004, cores=2, memory_bytes=210_000_000, measured=True
            ),
            FrontierPoint(
                candidate=UNCOMPRESSED, latency_s=0.0182, rate_per_s=211.0, drop=0.0, cores=2, memory_bytes=240_000_000, measured=True
            ),
        )
    )


def choice() -> Choice:
    """The winner."""
    return Choice(
        met=True,
        candidate=CHOSEN,
        reasons=("It holds 541/s with p99 within 20 ms on 2 cores; the next best holds 409/s.", "Quality is proven on the report part."),
        latency_s=0.0121,
        rate_per_s=541.0,
        quality=quality("lite0/fold+static-u8s8", "openvino", "report", 1988),
    )


STAGES = (
    StageTime(stage="load", duration_s=3.1),
    StageTime(stage="compress", duration_s=92.0),
    StageTime(stage="curve", duration_s=61.0),
    StageTime(stage="measure", duration_s=184.0),
)


def whole_run() -> list[Record]:
    """Every line of a run that met its objective."""
    comparing = comparison()
    roles = {"naive": NAIVE, "uncompressed": UNCOMPRESSED, "chosen": CHOSEN}
    rounds = [
        LoadRun(candidate=roles[role], role=role, round=i, point=point)
        for role, points in comparing.points.items()
        for i, point in enumerate(points)
    ]
    return [
        started(),
        inspected(),
        *compressed_records(),
        *measured_records(),
        quality("lite0/fold+static-u8s8", "openvino", "report", 1988),
        *rounds,
        comparing,
        frontier(),
        choice(),
        *STAGES,
        RunFinished(
            budget_s=600.0,
            left_out=("12 predicted plans were not loaded: the budget ended",),
            warnings=("this machine was busy with other work: figures may be off",),
        ),
    ]


def summary() -> Summary:
    """What ``tune --json`` prints for this run."""
    rejected = tuple(line for line in measured_records() if isinstance(line, Rejection))
    return Summary(
        run="runs/demo-vision",
        choice=choice(),
        frontier=frontier(),
        rejected=rejected,
        environment=ENVIRONMENT,
        objective=OBJECTIVE,
        comparison=comparison(),
        stages=STAGES,
        left_out=("12 predicted plans were not loaded: the budget ended",),
        warnings=("tracker wandb failed at log",),
        prediction_errors=(0.04, -0.21, 0.1),
    )


def write(folder: Path, lines: list[Record]) -> Path:
    """A run folder holding these lines."""
    journal = Journal(folder)
    for line in lines:
        journal.append(line)
    return folder


def test_the_example_is_a_run(tmp_path: Path) -> None:
    lines = whole_run()
    assert read_journal(write(tmp_path / "run", lines)) == lines
