"""A graph and a plan to a session, one runtime a file; and the census of what a runtime will execute.

This room knows graphs as files and arrays. It does not know how a graph was made, what load is, or what a good time would be.
It needs numpy and one runtime: the census alone reads graphs and needs the extra ``tune``.
"""

from headway.runtime.catalogue import census, open_session, refuse, runtimes, versions
from headway.runtime.hope import hopeless
from headway.runtime.session import Session, check_feeds

__all__ = ["Session", "census", "check_feeds", "hopeless", "open_session", "refuse", "runtimes", "versions"]
