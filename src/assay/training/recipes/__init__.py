"""Recipes: what a training step minimises, one file a method."""

from __future__ import annotations

from assay.training.recipes.adversarial import FGSMAT, PGDAT, AdversarialTraining, FastAT
from assay.training.recipes.alp import ALP
from assay.training.recipes.ape_gan import APEGAN
from assay.training.recipes.art import ART
from assay.training.recipes.avmixup import AVMixup
from assay.training.recipes.awp import AWP
from assay.training.recipes.base import Batch, Recipe, Views
from assay.training.recipes.cure import CURE
from assay.training.recipes.distillation import Distillation
from assay.training.recipes.free import FreeAT
from assay.training.recipes.generative import GenerativeRecipe
from assay.training.recipes.grad_align import GradAlign
from assay.training.recipes.ig_norm import IGNorm, IGSumNorm
from assay.training.recipes.interpolated import InterpolatedAT
from assay.training.recipes.likelihood import Likelihood
from assay.training.recipes.llr import LLR
from assay.training.recipes.mart import MART
from assay.training.recipes.multi_threat import MultiThreat
from assay.training.recipes.reconstruction import Reconstruction
from assay.training.recipes.standard import Standard
from assay.training.recipes.trades import TRADES
from assay.training.recipes.wgan_gp import WGANGP

__all__ = [
    "ALP",
    "APEGAN",
    "ART",
    "AWP",
    "CURE",
    "FGSMAT",
    "LLR",
    "MART",
    "PGDAT",
    "TRADES",
    "WGANGP",
    "AVMixup",
    "AdversarialTraining",
    "Batch",
    "Distillation",
    "FastAT",
    "FreeAT",
    "GenerativeRecipe",
    "GradAlign",
    "IGNorm",
    "IGSumNorm",
    "InterpolatedAT",
    "Likelihood",
    "MultiThreat",
    "Recipe",
    "Reconstruction",
    "Standard",
    "Views",
]
