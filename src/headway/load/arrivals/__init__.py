"""One arrival process a file: ``times(rate_per_s, duration_s, rng, *, ...)`` gives due times; keyword arguments are its settings.

``C2`` is the squared coefficient of variation of the gaps. A process whose rate changes over the run has
``cumulative(at, *, ...)`` too, the share of all arrivals expected before a share of the run, and ``C2`` is then of the gaps on that
clock (1: Poisson). One that replays has ``recorded(*, ...)``, the rate and length of the recording.

The first line of the file's docstring is what people read; the file's name is the process's name. ``headway.testing.arrivals`` is
the contract every file must keep.
"""
