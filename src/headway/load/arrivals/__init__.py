"""One arrival process a file: ``times(rate_per_s, duration_s, rng)`` gives due times, ``C2`` the squared variation of their gaps.

The first line of the file's docstring is what people read; the file's name is the process's name. ``headway.testing.arrivals`` is
the contract every file must keep.
"""
