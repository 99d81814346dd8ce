"""Everything that can go wrong for a user, by name: each message says what was found and how to fix it."""

from __future__ import annotations


class AssayError(Exception):
    """Base of all errors that a user of assay may want to catch."""


class InputError(AssayError, ValueError):
    """The inputs or labels cannot be used: out of bounds, integer pixels, NaN, wrong length, labels out of range."""


class ModelError(AssayError, ValueError):
    """The model cannot be used: NaN outputs, wrong output shape, no gradient, not loadable."""


class QueriesSpent(AssayError, RuntimeError):  # noqa: N818  (an end that was asked for, more than an error)
    """A total of model evaluations is used up; what was found with them is kept."""


class AccessError(AssayError, PermissionError):
    """An attack asked for more than the model grants (labels < scores < gradients)."""


class ThreatError(AssayError, ValueError):
    """The threat is malformed, or the attack cannot use it."""


class LossError(AssayError, ValueError):
    """The loss is unknown, or undefined for this output (for instance too few classes)."""


class SettingError(AssayError, ValueError):
    """A setting of an attack, suite or run is out of its range."""


class GrammarError(AssayError, ValueError):
    """An expression such as ``PGD(threat=Linf(8/255))`` could not be read; the message points at the place."""


class DataError(AssayError, ValueError):
    """A data set could not be found or read."""


class StoreError(AssayError, RuntimeError):
    """A run directory cannot be written, read or resumed."""


class MissingExtraError(AssayError, ImportError):
    """An optional package is needed; the message names the extra that brings it."""


class TrainingError(AssayError, RuntimeError):
    """A training run cannot go on; what it reached is kept, and the message says how to continue."""


class DivergedError(TrainingError):
    """The loss or the gradient is no finite number any more."""


class LostProcessError(TrainingError):
    """Another process of the run is gone; the run can be taken up from its checkpoint."""
