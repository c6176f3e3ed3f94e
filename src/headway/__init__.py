"""Headway: from a trained model, samples and an objective to a measured, served deployment.

``headway.api`` is the main path for programs; ``headway`` is the command.
"""

__version__ = "0.1.0"
