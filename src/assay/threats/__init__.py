"""Which inputs are allowed around a clean one."""

from assay.threats.base import Threat
from assay.threats.lp import L1, L2, Linf

__all__ = ["L1", "L2", "Linf", "Threat"]
