"""Recipes: what a training step minimises, one file a method."""

from __future__ import annotations

from assay.training.recipes.adversarial import FGSMAT, PGDAT, AdversarialTraining, FastAT
from assay.training.recipes.base import Batch, Recipe, Views
from assay.training.recipes.standard import Standard

__all__ = ["FGSMAT", "PGDAT", "AdversarialTraining", "Batch", "FastAT", "Recipe", "Standard", "Views"]
