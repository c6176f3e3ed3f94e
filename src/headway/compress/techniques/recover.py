"""Training that wins back what the step before it cost: on the training rows' labels and on the answers of the model as it came.

Distillation: Hinton et al. (arXiv 1503.02531). On a graph with quantize and dequantize nodes it is quantization-aware training with
straight-through gradients and, on request, learned scales (Esser et al., LSQ, arXiv 1902.08153). Weights that are exactly zero stay zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from headway.compress.bias_scales import settle_bias_scales
from headway.compress.catalogue import CLEANING, get
from headway.compress.context import Context, LabelledRows
from headway.compress.graph import first_integer_node
from headway.compress.settings import read_settings
from headway.lift import lift
from headway.model import Model
from headway.records import Setting, Unsupported
from headway.train import Attack, Distillation, Schedule, Settings, Tasks, matching_values, recover, synthetic_rows

ORDER = None
HARSHNESS = 1
FOLLOWS: tuple[str, ...] = ()

NO_ROWS = "needs training rows (--train); to learn from the parent alone set rows to calibration or synthetic"
TIMES = ("epochs", "steps", "batch", "learning_rate", "weight_decay", "patience", "limit_s")
DEFAULTS: dict[str, Setting] = {
    "epochs": 5,
    "steps": 0,
    "batch": 64,
    "learning_rate": 5e-4,
    "weight_decay": 0.0,
    "patience": 0,
    "limit_s": 0.0,
    "distil": 0.5,
    "temperature": 2.0,
    "features": 0.0,
    "loss": "auto",
    "balance": "given",
    "conflicts": "sum",
    "attack_radius": 0.0,
    "attack_steps": 7,
    "rows": "train",
    "synthetic": 1024,
    "learn_scales": True,
    "keep_zeros": True,
    "update_statistics": False,
}
CHOICES: dict[str, tuple[Setting, ...]] = {
    "loss": ("auto", "classes", "binary", "mse"),
    "balance": ("given", "uncertainty"),
    "conflicts": ("sum", "pcgrad"),
    "rows": ("train", "calibration", "synthetic"),
}
SHORT: dict[str, Setting] = {"epochs": 5}
LONG: dict[str, Setting] = {"epochs": 20, "patience": 6}


def refuse(model: Model, context: Context) -> str | None:
    """Why it cannot work unasked: no training rows, a graph that cannot be lifted, or nothing in it that learns.

    ``apply`` needs no training rows when the setting ``rows`` asks for calibration samples or for synthetic rows.
    """
    if context.train is None or not len(context.train):
        return f"recover: {NO_ROWS}"
    return _untrainable(model)


def ladder(model: Model, context: Context) -> tuple[dict[str, Setting], ...]:
    """A short and a longer training."""
    return () if refuse(model, context) else (dict(SHORT), dict(LONG))


def apply(model: Model, settings: dict[str, Setting], context: Context) -> Model:
    """The same graph with trained values; the selection rows, where there are any, decide which epoch is kept.

    Raises:
        ConfigError: a setting is unknown or out of range.
        Unsupported: the rows asked for are not there, nothing in the graph learns, or it cannot be lifted; the sentence names the node.
        DataError: rows or labels that do not fit the model.
    """
    chosen = read_settings("recover", settings, DEFAULTS, CHOICES)
    rows = _rows(chosen, model, context)
    teacher = None if context.parent is None else _cleaned(context.parent, context)
    if rows.labels is None and teacher is None:
        raise Unsupported("recover: rows without labels need the parent model as a teacher, got none; give labels")
    trained = recover(
        model,
        inputs=rows.inputs,
        labels=rows.labels,
        teachers=() if teacher is None else (teacher,),
        selection=context.selection,
        settings=_settings(model, teacher, rows, chosen, context.seed),
        start=teacher if first_integer_node(model.to_proto()) else None,
    ).model
    return Model.from_proto(settle_bias_scales(trained.to_proto()), model.name, model.origin)


def _rows(chosen: Mapping[str, Setting], model: Model, context: Context) -> LabelledRows:
    if chosen["rows"] == "synthetic":
        count = int(chosen["synthetic"])
        return LabelledRows(synthetic_rows(context.parent or model, count, seed=context.seed, like=context.samples or None).inputs)
    if chosen["rows"] == "calibration" and context.rows:
        return LabelledRows(context.samples)
    if chosen["rows"] == "train" and context.train is not None and len(context.train):
        return context.train
    missing = NO_ROWS if chosen["rows"] == "train" else "needs calibration samples, got none; give data"
    raise Unsupported(f"recover: {missing}")


def _settings(model: Model, teacher: Model | None, rows: LabelledRows, chosen: Mapping[str, Setting], seed: int) -> Settings:
    first, radius, weight = model.outputs[0].name, float(chosen["attack_radius"]), float(chosen["features"])
    pairs = matching_values(model, teacher, rows.inputs, weight=weight) if teacher is not None and weight > 0 else ()
    return Settings(
        schedule=Schedule(**{name: chosen[name] for name in TIMES}),
        tasks=Tasks(losses={first: str(chosen["loss"])}, balance=str(chosen["balance"]), conflicts=str(chosen["conflicts"])),
        distillation=Distillation(weight=float(chosen["distil"]), temperature=float(chosen["temperature"]), features=pairs),
        attack=Attack(radius=radius, steps=int(chosen["attack_steps"])) if radius > 0 else None,
        keep_zeros=bool(chosen["keep_zeros"]),
        learn_scales=bool(chosen["learn_scales"]) and first_integer_node(model.to_proto()) is not None,
        update_statistics=bool(chosen["update_statistics"]),
        seed=seed,
    )


def _untrainable(model: Model) -> str | None:
    try:
        lifted = lift(model)
    except Unsupported as error:
        return f"recover: {error}"
    return None if lifted.weights else "recover: the model must hold a float weight to train, got none; recover before quantizing"


@lru_cache(maxsize=2)
def _cleaned(parent: Model, context: Context) -> Model:
    """The parent in the form that steps work on, so that values of one name are the same values."""
    return get(CLEANING).apply(parent, {}, context)
