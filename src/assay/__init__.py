"""assay measures and improves the adversarial robustness of neural networks.

Names are imported on first use, so that ``import assay`` and ``assay --help`` stay quick.

Example:
    >>> import assay
    >>> assay.Linf(0.1)
    Linf(0.1)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from assay import attacks as attacks
    from assay.attributional import Attributed as Attributed
    from assay.attributional.attribute import attribute as attribute
    from assay.certification.certify import certify as certify
    from assay.data import Data as Data
    from assay.data import load_data as load_data
    from assay.drawing import picture as picture
    from assay.evaluation.calibrate import calibrate as calibrate
    from assay.evaluation.corrupted import Corrupted as Corrupted
    from assay.evaluation.corrupted.corrupt import corrupt as corrupt
    from assay.evaluation.evaluate import evaluate as evaluate
    from assay.evaluation.summary import Evaluation as Evaluation
    from assay.goals import Goal as Goal
    from assay.goals import Targeted as Targeted
    from assay.goals import Untargeted as Untargeted
    from assay.models import defend as defend
    from assay.models import load_model as load_model
    from assay.oracle import Access as Access
    from assay.oracle import Oracle as Oracle
    from assay.substitute import Substitute as Substitute
    from assay.substitute import fit_substitute as fit_substitute
    from assay.threats import L0 as L0
    from assay.threats import L1 as L1
    from assay.threats import L2 as L2
    from assay.threats import Combined as Combined
    from assay.threats import Corruptions as Corruptions
    from assay.threats import Flow as Flow
    from assay.threats import Linf as Linf
    from assay.threats import Patch as Patch
    from assay.threats import Recolor as Recolor
    from assay.threats import Rotation as Rotation
    from assay.threats import Threat as Threat
    from assay.threats import ToneCurve as ToneCurve
    from assay.threats import Translation as Translation
    from assay.training import Training as Training
    from assay.training import recipes as recipes
    from assay.training.study.study import study as study
    from assay.training.train import train as train
    from assay.transformations import EOT as EOT
    from assay.universal import Universal as Universal
    from assay.universal import UniversalPatch as UniversalPatch
    from assay.universal import fit_patch as fit_patch
    from assay.universal import fit_universal as fit_universal

__version__ = "0.1.0"

_HOMES = {
    "Access": "assay.oracle",
    "Attributed": "assay.attributional",
    "Combined": "assay.threats",
    "Corrupted": "assay.evaluation.corrupted",
    "Corruptions": "assay.threats",
    "Data": "assay.data",
    "EOT": "assay.transformations",
    "Evaluation": "assay.evaluation",
    "Flow": "assay.threats",
    "Goal": "assay.goals",
    "L0": "assay.threats",
    "L1": "assay.threats",
    "L2": "assay.threats",
    "Linf": "assay.threats",
    "Oracle": "assay.oracle",
    "Patch": "assay.threats",
    "Recolor": "assay.threats",
    "Rotation": "assay.threats",
    "Substitute": "assay.substitute",
    "Targeted": "assay.goals",
    "Threat": "assay.threats",
    "ToneCurve": "assay.threats",
    "Translation": "assay.threats",
    "Training": "assay.training",
    "Untargeted": "assay.goals",
    "Universal": "assay.universal",
    "UniversalPatch": "assay.universal",
    "attribute": "assay.attributional",
    "calibrate": "assay.evaluation.calibrate",
    "certify": "assay.certification",
    "corrupt": "assay.evaluation.corrupted",
    "defend": "assay.models",
    "evaluate": "assay.evaluation",
    "fit_patch": "assay.universal",
    "fit_substitute": "assay.substitute",
    "fit_universal": "assay.universal",
    "load_data": "assay.data",
    "load_model": "assay.models",
    "picture": "assay.drawing",
    "recipes": "assay.training",
    "study": "assay.training",
    "train": "assay.training",
}

_MODULES = (
    "attacks",
    "attribution",
    "certification",
    "corruptions",
    "data",
    "defenses",
    "errors",
    "evaluation",
    "losses",
    "models",
    "physical",
    "testing",
    "threats",
    "transformations",
    "universal",
)

__all__ = ["__version__", "attacks", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"assay.{name}")
    raise AttributeError(f"module 'assay' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
