"""Substitutes: networks trained on what a target answers, to be attacked in its place."""

from assay.substitute.fit import fit_substitute
from assay.substitute.substitute import Substitute

__all__ = ["Substitute", "fit_substitute"]
