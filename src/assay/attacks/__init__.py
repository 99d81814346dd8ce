"""Attacks: how to search."""

from assay.attacks.apgd import APGD, MultiTargeted
from assay.attacks.base import Attack, Result
from assay.attacks.pgd import BIM, FGSM, MIFGSM, PGD
from assay.attacks.square import Square

__all__ = ["APGD", "BIM", "FGSM", "MIFGSM", "PGD", "Attack", "MultiTargeted", "Result", "Square"]
