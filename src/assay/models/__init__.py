"""Models: loading them from anywhere, and the small reference networks that ship with the package."""

from assay.models.load import load_model

__all__ = ["load_model"]
