"""Attacks: how to search."""

from assay.attacks.adam import AdamSearch, ReColorAdv
from assay.attacks.apgd import APGD, MultiTargeted
from assay.attacks.base import Attack, Result
from assay.attacks.boundary_attack import Boundary
from assay.attacks.carlini_wagner import CarliniWagner
from assay.attacks.ddn import DDN
from assay.attacks.deepfool import DeepFool
from assay.attacks.ead import EAD
from assay.attacks.fab import FAB
from assay.attacks.fmn import FMN
from assay.attacks.genetic import Genetic
from assay.attacks.geoda import GeoDA
from assay.attacks.hop_skip_jump import HopSkipJump
from assay.attacks.jsma import JSMA
from assay.attacks.local_search import LocalSearch
from assay.attacks.low_dimensional import GridSearch, RandomSearch
from assay.attacks.nes import NES, SPSA
from assay.attacks.one_pixel import OnePixel
from assay.attacks.opt import OPT, SignOPT
from assay.attacks.pdpgd import PDPGD
from assay.attacks.pgd import BIM, FGSM, MIFGSM, PGD
from assay.attacks.pointwise import Pointwise
from assay.attacks.presets import DIFGSM, NIFGSM, SINIFGSM, TIFGSM, VMIFGSM
from assay.attacks.pursuit import Pursuit
from assay.attacks.relay import Relay
from assay.attacks.salt_and_pepper import SaltAndPepper
from assay.attacks.sigma_zero import SigmaZero
from assay.attacks.simba import SimBA
from assay.attacks.square import Square
from assay.attacks.stadv import StAdv
from assay.attacks.transfer import Transfer
from assay.attacks.zoo import ZOO

__all__ = [
    "APGD",
    "BIM",
    "DDN",
    "DIFGSM",
    "EAD",
    "FAB",
    "FGSM",
    "FMN",
    "JSMA",
    "MIFGSM",
    "NES",
    "NIFGSM",
    "OPT",
    "PDPGD",
    "PGD",
    "SINIFGSM",
    "SPSA",
    "TIFGSM",
    "VMIFGSM",
    "ZOO",
    "AdamSearch",
    "Attack",
    "Boundary",
    "CarliniWagner",
    "DeepFool",
    "Genetic",
    "GeoDA",
    "GridSearch",
    "HopSkipJump",
    "LocalSearch",
    "MultiTargeted",
    "OnePixel",
    "Pointwise",
    "Pursuit",
    "RandomSearch",
    "ReColorAdv",
    "Relay",
    "Result",
    "SaltAndPepper",
    "SigmaZero",
    "SignOPT",
    "SimBA",
    "Square",
    "StAdv",
    "Transfer",
]
