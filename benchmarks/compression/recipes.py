"""Headway's own rows: one recipe a row, by model. A recipe is the steps as they are written in a configuration."""

from __future__ import annotations

from headway.records import Setting, Step

FOLD: tuple[str, dict[str, Setting]] = ("fold", {})
EPOCHS = {"digits": 20, "vision": 10, "text": 2, "speech": 30, "recommend": 10}
"""Passes over the rows to learn from (calibration rows without labels where there are none), for Headway's rows and for Torch-Pruning's."""
Recipe = tuple[tuple[str, dict[str, Setting]], ...]

EVERY: dict[str, Recipe] = {
    "fold": (FOLD,),
    "static, mse": (FOLD, ("quantize_static", {"calibrator": "mse"})),
    "static, min_max": (FOLD, ("quantize_static", {"calibrator": "min_max"})),
    "static, but 10% sensitive": (FOLD, ("quantize_static", {"scope": "but_sensitive", "keep_float": 0.1})),
    "static, but 25% sensitive": (FOLD, ("quantize_static", {"scope": "but_sensitive", "keep_float": 0.25})),
    "dynamic": (FOLD, ("quantize_dynamic", {})),
}


def recover(model: str, **more: Setting) -> tuple[str, dict[str, Setting]]:
    """The training step with the passes of the model, on calibration rows where there are no rows to learn from."""
    rows: dict[str, Setting] = {"rows": "calibration"} if model == "vision" else {}
    return ("recover", {"epochs": EPOCHS[model], **rows, **more})


WEIGHTS: dict[str, Recipe] = {
    "weights 8 bit": (FOLD, ("quantize_weights", {"bits": 8})),
    "weights 8 bit, 8-bit arithmetic": (FOLD, ("quantize_weights", {"bits": 8, "accuracy_level": 4})),
    "weights 4 bit, second order": (FOLD, ("quantize_weights", {"bits": 4, "rounding": "second_order"})),
    "weights 4 bit, blocks of 256": (FOLD, ("quantize_weights", {"bits": 4, "block": 256})),
}
STATIC: tuple[str, dict[str, Setting]] = ("quantize_static", {"calibrator": "mse"})
DYNAMIC: tuple[str, dict[str, Setting]] = ("quantize_dynamic", {})
SMOOTH: tuple[str, dict[str, Setting]] = ("quantize_static", {"calibrator": "mse", "smooth": 0.8})
DROP: tuple[str, dict[str, Setting]] = ("drop_blocks", {"drop": 1.0})
DROP_THREE: tuple[str, dict[str, Setting]] = ("drop_blocks", {"drop": 3.0})
AFTER: dict[str, Recipe] = {"": (), ", static, smooth": (SMOOTH,), ", dynamic": (DYNAMIC,)}


def pruned(model: str, keep: float, by: str, *then: tuple[str, dict[str, Setting]]) -> Recipe:
    """Channels cut to a share of the cost, trained, and what follows."""
    return (FOLD, cut(keep, by), recover(model), *then)


def cut(keep: float, by: str) -> tuple[str, dict[str, Setting]]:
    """The pruning step."""
    return ("prune_channels", {"keep": keep, "by": by})


OWN: dict[str, dict[str, Recipe]] = {
    "digits": {
        **{f"prune to {keep:.0%} of the MACs, recover": pruned("digits", keep, "mac") for keep in (0.5, 0.25, 0.12, 0.06, 0.03)},
        **{f"prune to {keep:.0%} of the MACs, recover, static": pruned("digits", keep, "mac", STATIC) for keep in (0.25, 0.12, 0.06)},
        "prune to 25% of the MACs, recover, static, recover": pruned("digits", 0.25, "mac", STATIC, recover("digits")),
        "static, recover": (FOLD, STATIC, recover("digits")),
    },
    "vision": {
        "static, biases corrected": (FOLD, ("quantize_static", {"calibrator": "mse", "correct_bias": True})),
        "static, equalized, biases corrected": (FOLD, ("quantize_static", {"calibrator": "mse", "equalize": True, "correct_bias": True})),
        **{f"prune to {keep:.0%} of the MACs, static": (FOLD, cut(keep, "mac"), STATIC) for keep in (0.5, 0.25)},
        "static, recover without labels": (FOLD, STATIC, recover("vision")),
    },
    "text": {
        **WEIGHTS,
        "static, smooth": (FOLD, SMOOTH),
        **{f"drop a block, recover{word}": (FOLD, DROP, recover("text"), *then) for word, then in AFTER.items()},
        **{f"drop three blocks, recover{word}": (FOLD, DROP_THREE, recover("text"), *then) for word, then in AFTER.items()},
        **{f"prune to 75% of the MACs, recover{word}": pruned("text", 0.75, "mac", *then) for word, then in AFTER.items()},
    },
    "speech": {
        "weights 8 bit": WEIGHTS["weights 8 bit"],
        **{f"prune to {keep:.0%} of the MACs, recover": pruned("speech", keep, "mac") for keep in (0.5, 0.35)},
        **{f"prune to {keep:.0%} of the MACs, recover, dynamic": pruned("speech", keep, "mac", DYNAMIC) for keep in (0.5, 0.35)},
    },
    "recommend": {
        **WEIGHTS,
        "static, mse, tables in float": (FOLD, ("quantize_static", {"calibrator": "mse", "tables": False})),
        "static, min_max, tables in float": (FOLD, ("quantize_static", {"calibrator": "min_max", "tables": False})),
        "dynamic, tables in float": (FOLD, ("quantize_dynamic", {"tables": False})),
    },
}


def recipes(model: str) -> dict[str, tuple[Step, ...]]:
    """The recipes of a model by the row's name."""
    return {
        name: tuple(Step(technique=technique, settings=dict(settings)) for technique, settings in recipe)
        for name, recipe in {**EVERY, **OWN[model]}.items()
    }
