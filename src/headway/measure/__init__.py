"""A candidate to measurements on this machine, and the machine itself: instruction sets, ceilings, noise.

This room times, loads and scores. It does not know which candidates deserve it (``search``), nor how a variant was made (``compress``).
"""
