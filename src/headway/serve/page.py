"""The page at ``/``: what is served here and how to ask it. One self-contained HTML text; it is given facts and knows no server."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from headway.records import Bundle, BundledVariant, TensorSpec
from headway.serve.wire import datatype

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { max-width: 46rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem; margin: 0 } h2 { font-size: 1.05rem; margin: 2rem 0 .4rem }
table { border-collapse: collapse; width: 100% } th { font-weight: 500; opacity: .7; width: 11rem }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #8884; vertical-align: top; overflow-wrap: anywhere }
pre { padding: .8rem; background: #8882; border-radius: .4rem; overflow-x: auto; font-size: .85rem } a { color: inherit }
"""


def render(manifest: Bundle, served: BundledVariant, notes: Sequence[str]) -> str:
    """The page for one served variant."""
    facts = [
        ("Variant", served.variant.name),
        ("Recipe", ", ".join(str(step) for step in served.variant.recipe) or "the model as it came"),
        ("Precision", served.variant.precision),
        ("Plan", str(served.plan)),
        ("Objective", str(manifest.objective)),
        ("Measured", _measured(served)),
        ("Measured on", f"{manifest.environment.cpu}, {manifest.environment.cores} cores"),
        ("Also in the bundle", ", ".join(other.variant.name for other in manifest.variants if other is not served) or "nothing"),
        ("Labels", _labels(manifest.labels)),
    ]
    notices = "".join(f"<p><strong>Note:</strong> {escape(note)}</p>" for note in notes)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(manifest.name)} - Headway</title><style>{_STYLE}</style>"
        f"<h1>{escape(manifest.name)}</h1><p>Served by Headway over the Open Inference Protocol v2.</p>{notices}"
        f"{_table(facts)}<h2>Inputs</h2>{_table([_tensor(spec) for spec in manifest.inputs])}"
        f"<h2>Outputs</h2>{_table([_tensor(spec) for spec in manifest.outputs])}"
        f"<h2>Ask it</h2><pre>{escape(_example(manifest))}</pre>"
        f'<p><a href="/v2/models/{escape(manifest.name)}">metadata</a> &middot; <a href="/v2/health/ready">ready</a> &middot; '
        f'<a href="/metrics">metrics</a></p></html>'
    )


def _table(rows: Sequence[tuple[str, str]]) -> str:
    return "<table>" + "".join(f"<tr><th>{escape(name)}<td>{escape(value)}" for name, value in rows) + "</table>"


def _tensor(spec: TensorSpec) -> tuple[str, str]:
    return spec.name, f"{datatype(spec)} [{', '.join(str(size) for size in spec.shape)}]"


def _measured(served: BundledVariant) -> str:
    parts = []
    if served.latency_s is not None:
        parts.append(f"{served.latency_s * 1e3:.3g} ms")
    if served.rate_per_s is not None:
        parts.append(f"{served.rate_per_s:.4g} requests/s within the objective")
    if served.drop is not None:
        parts.append(f"{served.drop * 100:.2g} points lost against the original")
    return ", ".join(parts) or "not recorded"


def _labels(labels: Sequence[str]) -> str:
    shown = ", ".join(labels[:12])
    return (shown + f", and {len(labels) - 12} more" if len(labels) > 12 else shown) or "none"


def _example(manifest: Bundle) -> str:
    tensors = ", ".join(
        f'{{"name": "{spec.name}", "datatype": "{datatype(spec)}", "shape": {_one_row(spec)}, "data": [...]}}' for spec in manifest.inputs
    )
    return f"curl http://HOST:PORT/v2/models/{manifest.name}/infer \\\n  -d '{{\"inputs\": [{tensors}]}}'"


def _one_row(spec: TensorSpec) -> list[int]:
    return [size if isinstance(size, int) else 1 for size in spec.shape]
