"""Problems with known answers and the contract of an attack, to be run on your own attacks too."""

from __future__ import annotations

from assay.testing.case import Case, ContractError
from assay.testing.checks import CHECKS
from assay.testing.contract import check_attack
from assay.testing.models import Counting

__all__ = ["CHECKS", "Case", "ContractError", "Counting", "check_attack"]
