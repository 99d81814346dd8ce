"""Evaluation: a suite of attacks over a data set, kept in a run directory, with the per-sample worst case."""

from assay.evaluation.evaluate import evaluate
from assay.evaluation.flags import Flag
from assay.evaluation.merge import Table
from assay.evaluation.stages import Stage, Suite
from assay.evaluation.store import Store
from assay.evaluation.suites import load_suite
from assay.evaluation.summary import Evaluation

__all__ = ["Evaluation", "Flag", "Stage", "Store", "Suite", "Table", "evaluate", "load_suite"]
