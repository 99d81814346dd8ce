"""Training for robustness: recipes, and the one loop that drives them."""

from __future__ import annotations

from assay.training.run import Training
from assay.training.study import Study, study
from assay.training.train import train

__all__ = ["Study", "Training", "study", "train"]
