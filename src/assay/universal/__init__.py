"""Universal perturbations: one perturbation for all inputs, fitted on some of them and measured on others."""

from assay.universal.artefact import Universal
from assay.universal.ascent import StochasticAscent
from assay.universal.deepfool import DeepFoolPasses
from assay.universal.fit import METHODS, Fitting, fit_universal, fitting, resolve
from assay.universal.method import Method
from assay.universal.parts import split
from assay.universal.rates import Rate, Rates, measure

__all__ = [
    "METHODS",
    "DeepFoolPasses",
    "Fitting",
    "Method",
    "Rate",
    "Rates",
    "StochasticAscent",
    "Universal",
    "fit_universal",
    "fitting",
    "measure",
    "resolve",
    "split",
]
