"""Models: loading them from anywhere, what answers with labels or scores only, and small reference networks."""

from assay.models.defended import Defended, defend
from assay.models.ensemble import Ensemble
from assay.models.estimators import Estimator
from assay.models.function import Function
from assay.models.http_model import HttpModel
from assay.models.limited import LabelsOnly, Rounded, ScoresOnly, TopK
from assay.models.load import load_model
from assay.models.metered import Metered

__all__ = [
    "Defended",
    "Ensemble",
    "Estimator",
    "Function",
    "HttpModel",
    "LabelsOnly",
    "Metered",
    "Rounded",
    "ScoresOnly",
    "TopK",
    "defend",
    "load_model",
]
