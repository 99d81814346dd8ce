"""One offline HTML page per training run: how it went, what was kept, and how to run it again."""

from assay.training.report.page import render

__all__ = ["render"]
