"""A bundle written: variants, plans, a golden set and the manifest, in one folder that appears whole or not at all.

This room does not choose what goes into a bundle, and it measures nothing; it is told.
"""

from headway.deploy.package import Entry, Expected, package
from headway.deploy.synthetic import synthetic_inputs

__all__ = ["Entry", "Expected", "package", "synthetic_inputs"]
