"""``doctor``: this machine, and every plug-in that works on it or the reason why not."""

from __future__ import annotations

from headway.compress import techniques
from headway.demo import demos
from headway.discovery import Found
from headway.load import arrivals
from headway.measure.environment import environment
from headway.runtime import devices, gpus, runtimes
from headway.track import tracker_names

MEANING = {
    "avx2": "256-bit float", "avx512f": "512-bit float", "avx512_vnni": "fast int8", "avx_vnni": "fast int8", "avx512_bf16": "fast bfloat16",
    "avx512_fp16": "fast float16", "amx_int8": "very fast int8", "amx_bf16": "very fast bfloat16", "neon": "128-bit float",
    "asimddp": "fast int8", "i8mm": "fast int8", "arm_bf16": "fast bfloat16", "arm_fp16": "fast float16", "sve": "wide float",
}  # fmt: skip
NOISY = 1.3


def doctor() -> dict[str, object]:
    """Facts by name: the machine, its instruction sets and what they are good for, noise, and the plug-ins with their state."""
    here = environment()
    quiet = "quiet" if here.noise_ratio < NOISY else "noisy: figures taken now will have wide intervals"
    return {
        "machine": {
            "processor": here.cpu, "cores": here.cores, "memory": f"{here.memory_bytes / 2**30:.1f} GiB", "system": here.system, "python": here.python,
            **({"gpu": ", ".join(found)} if (found := gpus()) else {}),
            "noise": f"{here.noise_ratio:.2f} (p95 over median of a fixed computation): {quiet}",
        },
        "instruction sets": {name: MEANING.get(name, "") for name in here.instruction_sets},
        "runtimes": _state(runtimes()) | {name: f"usable on {', '.join(devices(name))}" for name in runtimes().present},
        "techniques": _state(techniques()),
        "arrival processes": _state(arrivals()),
        "trackers": dict.fromkeys(tracker_names(), "opened with --track"),
        "demos": _state(demos()),
        "libraries": dict(here.versions),
    }  # fmt: skip


def _state(found: Found) -> dict[str, str]:
    return {**dict.fromkeys(found.present, "usable"), **{name: f"missing: {reason}" for name, reason in found.missing.items()}}
