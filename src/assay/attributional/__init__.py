"""Attributional robustness: how much explanations change under attack while decisions stay."""

from assay.attributional.attribute import Attributed, attribute

__all__ = ["Attributed", "attribute"]
