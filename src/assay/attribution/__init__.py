"""Attributions, how alike two of them are, and the goal that changes them while the decision stays."""

from assay.attribution.base import Attribution, Explanation, heat
from assay.attribution.changes import Change, Manipulation, MassCentre, Region, TopK
from assay.attribution.goal import Explained
from assay.attribution.grad_cam import GradCAM
from assay.attribution.gradients import Gradient, GradientTimesInput
from assay.attribution.integrated import IntegratedGradients
from assay.attribution.smooth import SmoothGrad
from assay.attribution.surrogate import softplus

__all__ = [
    "Attribution",
    "Change",
    "Explained",
    "Explanation",
    "GradCAM",
    "Gradient",
    "GradientTimesInput",
    "IntegratedGradients",
    "Manipulation",
    "MassCentre",
    "Region",
    "SmoothGrad",
    "TopK",
    "heat",
    "softplus",
]
