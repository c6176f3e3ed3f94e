"""A graph and a plan to a session, one runtime a file; and the census of what a runtime will execute.

This room knows graphs as files and arrays. It does not know how a graph was made, what load is, or what a good time would be.
It needs numpy and one runtime: the census alone reads graphs and needs the extra ``tune``, and so does the runtime that lifts them to torch.
"""

from headway.runtime.catalogue import asked_only, census, devices, gpus, missing, open_session, refuse, runtime_names, runtimes, versions
from headway.runtime.hope import hopeless
from headway.runtime.session import Session, check_feeds

__all__ = [
    "Session",
    "asked_only",
    "census",
    "check_feeds",
    "devices",
    "gpus",
    "hopeless",
    "missing",
    "open_session",
    "refuse",
    "runtime_names",
    "runtimes",
    "versions",
]
