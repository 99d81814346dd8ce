"""Models with known answers: what a correct attack must find, and what no attack may find."""

from __future__ import annotations

from assay.testing.problems.affine import Affine
from assay.testing.problems.base import Norm, Problem
from assay.testing.problems.constant import Constant
from assay.testing.problems.masked import Masked
from assay.testing.problems.quadratic import Quadratic
from assay.testing.problems.sparse import Sparse

__all__ = ["Affine", "Constant", "Masked", "Norm", "Problem", "Quadratic", "Sparse"]
