"""One offline HTML page per run: what withstood, what broke, how it failed and how to run it again."""

from assay.evaluation.report.page import render

__all__ = ["render"]
