"""One perturbation, or one patch, for all inputs: fitted on some of them and measured on others."""

from assay.data.parts import split
from assay.universal.artefact import Universal
from assay.universal.ascent import StochasticAscent
from assay.universal.deepfool import DeepFoolPasses
from assay.universal.fit import METHODS, fit_universal, fitting, resolve
from assay.universal.following import Fitting
from assay.universal.method import Method
from assay.universal.patch import Pasting, PatchAscent, UniversalPatch, fit_patch, patch_fitting, patch_method
from assay.universal.rates import Rate, Rates, measure

__all__ = [
    "METHODS",
    "DeepFoolPasses",
    "Fitting",
    "Method",
    "Pasting",
    "PatchAscent",
    "Rate",
    "Rates",
    "StochasticAscent",
    "Universal",
    "UniversalPatch",
    "fit_patch",
    "fit_universal",
    "fitting",
    "measure",
    "patch_fitting",
    "patch_method",
    "resolve",
    "split",
]
