"""Accuracy under corruptions: runs, corruption errors, copies on a disk."""

from assay.evaluation.corrupted.corrupt import Corrupted, corrupt
from assay.evaluation.corrupted.errors import ALEXNET, Baseline

__all__ = ["ALEXNET", "Baseline", "Corrupted", "corrupt"]
