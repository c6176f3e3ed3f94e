"""The main path: the stages of a run in order, budgeted, recorded and resumable.

``headway.api.tune.tune`` is what ``headway tune`` calls; programs may call it the same way.
"""
