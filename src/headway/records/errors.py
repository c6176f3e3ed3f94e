"""Every error that Headway raises on purpose.

    HeadwayError                      exit code 1: a defect, or a failure nobody can mend by other input
    +-- InputError                    exit code 2: something the user gave must change
    |   +-- ObjectiveError            the objective's text
    |   +-- ModelError                the model file or callable
    |   +-- DataError                 the samples
    |   +-- ConfigError               headway.toml, options, a name that is not known
    |   +-- BundleError               a bundle or a run folder
    |   +-- RecordError               a record's JSON form
    |   +-- MissingPackage            an optional package is not installed
    +-- Unsupported                   a technique or a runtime refuses a graph, with the reason in one sentence
    +-- MeasurementError              no honest number could be had
    +-- ObjectiveNotMet               exit code 3: nothing measured meets the objective

Each message says what must hold, what was got, and what to do.
"""

from __future__ import annotations


class HeadwayError(Exception):
    """The root of all deliberate errors; ``exit_code`` is what the command line returns."""

    exit_code = 1


class InputError(HeadwayError):
    """Something the user gave must change."""

    exit_code = 2


class ObjectiveError(InputError):
    """The text of an objective cannot be understood, or contradicts itself."""


class ModelError(InputError):
    """A model cannot be read, or does not run on the data."""


class DataError(InputError):
    """Samples cannot be read, or do not fit the model."""


class ConfigError(InputError):
    """A setting is unknown or out of range."""


class BundleError(InputError):
    """A bundle or a run folder is missing, damaged or unsafe."""


class RecordError(InputError):
    """A record's JSON form does not fit."""


class MissingPackage(InputError):
    """An optional package is needed and not installed."""


class Unsupported(HeadwayError):
    """A technique or a runtime refuses a graph; the message is one sentence with the reason."""


class MeasurementError(HeadwayError):
    """A measurement could not be taken honestly."""


class ObjectiveNotMet(HeadwayError):
    """Nothing measured meets the objective."""

    exit_code = 3
