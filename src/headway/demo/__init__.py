"""Real models and real labelled data out of registry packages: ``headway demo NAME``.

A demo is one file in ``demos/`` with ``build(cache, progress) -> Case``. This room knows packages, files and how the small models are
trained. It does not know what is done with a case: compression, measurement and serving treat it like any user's model and samples.
"""

from headway import discovery
from headway.demo import demos as _folder
from headway.demo.case import Case, Progress
from headway.discovery import Found


def demo_names() -> tuple[str, ...]:
    """Names of all demos, without importing one."""
    return discovery.names(_folder)


def find_demo(name: str) -> Found:
    """One demo, imported alone: present, missing with the reason, or in neither when there is no such demo."""
    return discovery.find(_folder, name)


def demos() -> Found:
    """The demos by name, and the reason for each whose packages are not installed."""
    return discovery.discover(_folder)


__all__ = ["Case", "Found", "Progress", "demo_names", "demos", "find_demo"]
