"""Which inputs are allowed around a clean one."""

from assay.threats.affine import Rotation, Translation
from assay.threats.base import Threat
from assay.threats.combined import Combined
from assay.threats.corruptions import Corruptions
from assay.threats.flow import Flow
from assay.threats.functional import Recolor, ToneCurve
from assay.threats.lp import L1, L2, Linf
from assay.threats.patch import Patch
from assay.threats.sparse import L0

__all__ = [
    "L0",
    "L1",
    "L2",
    "Combined",
    "Corruptions",
    "Flow",
    "Linf",
    "Patch",
    "Recolor",
    "Rotation",
    "Threat",
    "ToneCurve",
    "Translation",
]
