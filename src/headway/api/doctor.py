"""``doctor``: this machine, and every plug-in that works on it or the reason why not."""

from __future__ import annotations

from types import ModuleType

from headway import compress, model, runtime
from headway.demo import demos
from headway.discovery import Found, first_line
from headway.load import arrivals
from headway.measure.environment import environment, noise_ratio
