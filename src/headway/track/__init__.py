"""Run records to experiment trackers, one tracker a file in ``track/trackers``.

This room knows records and the trackers' own libraries. It does not know what a run does, and a run never depends on it:
a tracker that fails is warned about once and left out from then on.
"""

from headway.track.figures import Figure, figures, notes
from headway.track.opened import Tracker, Trackers, open_trackers, tracker_names

__all__ = ["Figure", "Tracker", "Trackers", "figures", "notes", "open_trackers", "tracker_names"]
