"""Attacks: how to search."""

from assay.attacks.base import Attack, Result
from assay.attacks.pgd import BIM, FGSM, MIFGSM, PGD

__all__ = ["BIM", "FGSM", "MIFGSM", "PGD", "Attack", "Result"]
