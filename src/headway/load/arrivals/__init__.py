"""One arrival process a file: ``gaps_s(rate_per_s, count, rng)`` gives times between arrivals; ``C2`` is their squared variation."""
