"""Carlini and Wagner's three attacks: one for each norm, with what they share."""

from assay.attacks.carlini_wagner.attack import CarliniWagner

__all__ = ["CarliniWagner"]
